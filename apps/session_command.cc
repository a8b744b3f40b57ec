// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "cache/session_export.h"
#include "commands.h"
#include "inspect_store.h"
#include "model_path.h"
#include "option_checks.h"
#include "record.h"
#include "report.h"
#include "store_view.h"
#include "terminal.h"
#include "tier/disk_tier.h"
#include "tier/open_tier.h"

namespace kvist {
namespace {

struct SessionArguments {
  std::string store = DefaultStorePath();
  std::vector<std::string> names;
  std::string file;
  bool replaces = false;
  bool json = false;
};

// The limit is for those to keep who fill the store; nothing is evicted here.
Result<std::unique_ptr<DiskTier>> OpenStore(const std::string& path) {
  return DiskTier::Open(path, {.limit_bytes = INT64_MAX});
}

// One that is there: a mistyped path must not make another.
Result<std::unique_ptr<DiskTier>> OpenExistingStore(const std::string& path) {
  KVIST_TRY_VOID(CheckStore(path));
  return OpenStore(path);
}

// An import makes a store, but not of a folder with other things in it.
Result<std::unique_ptr<DiskTier>> OpenOrMakeStore(const std::string& path) {
  std::error_code ignored;
  const bool is_free = !std::filesystem::exists(path, ignored) || std::filesystem::is_empty(path, ignored);
  return is_free ? OpenStore(path) : OpenExistingStore(path);
}

int ReportNoStore(Error error) {
  if (error.code == ErrorCode::kNotFound) error.message += "; name another with --store PATH or --tier disk:PATH";
  return Report(error);
}

// Of what was asked of a store that is there, or of the file that goes with it.
int ReportOfStore(Error error, const SessionArguments& arguments) {
  const bool is_of_file = !arguments.file.empty() && (error.message.contains(" " + arguments.file + ":") ||
                                                      error.message.contains("file " + arguments.file));
  if (!is_of_file && !error.message.contains(arguments.store)) {
    error.message += " (in the store " + arguments.store + ")";
  }
  if (error.code == ErrorCode::kNotFound) error.message += "; `kvist session list` shows what a store has";
  if (error.code == ErrorCode::kFailedPrecondition) error.message += "; --replace replaces it";
  return Report(error);
}

RecordProgress ShowIn(Progress& progress) {
  return [&progress](int64_t done, int64_t all) {
    progress.Show(done, all);
    return !interrupted();
  };
}

// --- list and show ---

int RunList(const SessionArguments& arguments) {
  Output out;
  const auto view = StoreView::Open(arguments.store);
  // Nobody has saved anything yet.
  const bool is_unused = !view && view.error().code == ErrorCode::kNotFound && arguments.store == DefaultStorePath();
  if (!view && !is_unused) return ReportNoStore(view.error());
  std::vector<Json> sessions;
  if (view) {
    for (const std::string& name : view->SessionNames()) sessions.push_back(SessionJson(*view->ReadSession(name)));
  }
  if (arguments.json) {
    for (const Json& session : sessions) WriteJson(session, out);
  } else if (sessions.empty()) {
    Note("there are no sessions in " + arguments.store + (is_unused ? ", which is not there yet" : "") +
         "; `kvist chat --session NAME` saves one, --store PATH or --tier disk:PATH names another store");
  } else {
    out.Write(Row("store", PrintableText(arguments.store)) + "\n" + SessionsText(sessions));
  }
  return out.ExitCode(kExitOk);
}

// The conversation if the notes are those of `kvist chat`, else null.
Json MessagesJson(const std::vector<std::byte>& notes) {
  const auto* text = reinterpret_cast<const char*>(notes.data());
  const auto saved = Json::parse(text, text + notes.size(), nullptr, false);
  const auto is_message = [](const Json& message) {
    return message.is_array() && message.size() == 2 && message[0].is_string() && message[1].is_string();
  };
  if (!saved.is_array() || !std::ranges::all_of(saved, is_message)) return {};
  Json messages = Json::array();
  for (const Json& message : saved) messages.push_back({{"role", message[0]}, {"content", message[1]}});
  return messages;
}

// A salt may be a secret: whoever knows it can find out what others asked.
Json DetailsJson(const StoreView::Session& session) {
  return {{"session", SessionJson(session)},
          {"salt_bytes", session.manifest.salt.size()},
          {"notes_bytes", session.manifest.notes.size()},
          {"messages", MessagesJson(session.manifest.notes)}};
}

std::string DetailsText(const Json& details) {
  const auto salt_bytes = details["salt_bytes"].get<uint64_t>(), notes_bytes = details["notes_bytes"].get<uint64_t>();
  const Json& messages = details["messages"];
  std::string text = SessionsText({details["session"]}) + "\n";
  if (salt_bytes > 0) text += Row("salt", "of " + std::to_string(salt_bytes) + " bytes");
  if (messages.is_null()) text += Row("notes", std::to_string(notes_bytes) + " bytes, none of kvist chat's");
  for (const Json& message : messages) {
    text +=
        Row(PrintableText(message["role"].get<std::string>()), PrintableText(message["content"].get<std::string>()));
  }
  return text;
}

int RunShow(const SessionArguments& arguments) {
  const auto view = StoreView::Open(arguments.store);
  if (!view) return ReportNoStore(view.error());
  const auto session = view->ReadSession(arguments.names.front());
  if (!session) return ReportOfStore(session.error(), arguments);
  if (session->fault) {
    return ReportOfStore({session->fault->code, "session " + session->name + ": " + session->fault->message},
                         arguments);
  }
  Output out;
  const Json details = DetailsJson(*session);
  arguments.json ? WriteJson(details, out) : out.Write(DetailsText(details));
  return out.ExitCode(kExitOk);
}

// --- remove, export, import ---

int RunRemove(const SessionArguments& arguments) {
  const auto disk = OpenExistingStore(arguments.store);
  if (!disk) return ReportNoStore(disk.error());
  int exit_code = kExitOk;
  for (const std::string& name : arguments.names) {
    const Status removed = (*disk)->RemoveSession(name);
    if (!removed) exit_code = ReportOfStore(removed.error(), arguments);
  }
  return exit_code;
}

int WriteTransfer(const char* command, const std::string& name, const SessionExport& facts,
                  const SessionArguments& arguments) {
  Output out;
  if (arguments.json) {
    WriteJson({{"command", command},
               {"name", name},
               {"file", arguments.file},
               {"store", arguments.store},
               {"records", facts.num_records},
               {"bytes", facts.file_bytes}},
              out);
  } else {
    out.Write(name + ": " + std::to_string(facts.num_records) + " records, " + BytesText(double(facts.file_bytes)) +
              "\n");
  }
  return out.ExitCode(kExitOk);
}

int RunExport(const SessionArguments& arguments) {
  CatchInterrupts(true);
  const auto disk = OpenExistingStore(arguments.store);
  if (!disk) return ReportNoStore(disk.error());
  Progress progress("export", "records", false);
  const ExportOptions options{.replaces = arguments.replaces, .progress = ShowIn(progress)};
  const auto exported = ExportSession(**disk, arguments.names.front(), arguments.file, options);
  progress.Clear();
  if (!exported) return ReportOfStore(exported.error(), arguments);
  return WriteTransfer("session export", exported->name, *exported, arguments);
}

int RunImport(const SessionArguments& arguments) {
  CatchInterrupts(true);
  Progress verifying("verify", "records", false), progress("import", "records", false);
  const auto import = SessionImport::Open(arguments.file, ShowIn(verifying));
  verifying.Clear();
  if (!import) return Report(import.error());
  const std::string name = arguments.names.empty() ? import->facts().name : arguments.names.front();
  const auto disk = OpenOrMakeStore(arguments.store);
  if (!disk) return ReportNoStore(disk.error());
  const Status stored =
      import->StoreIn(**disk, {.name = name, .replaces = arguments.replaces, .progress = ShowIn(progress)});
  progress.Clear();
  if (!stored) return ReportOfStore(stored.error(), arguments);
  return WriteTransfer("session import", name, import->facts(), arguments);
}

// --- the command line ---

// Of the first disk tier, where a chat with these saves; nothing if there is none.
std::string StoreOfTiers(const std::vector<std::string>& specs) {
  const auto disk = std::ranges::find_if(specs, IsDiskSpec);
  return disk == specs.end() ? "" : DiskPathOf(*disk).value_or("");
}

void AddStoreOptions(CLI::App* command, const std::shared_ptr<SessionArguments>& arguments) {
  CLI::Option* store = command->add_option("--store", arguments->store, "Folder of the disk tier that they are in")
                           ->type_name("PATH")
                           ->default_str("~/.local/share/kvist/store");
  command
      ->add_option_function<std::vector<std::string>>(
          "--tier",
          [=](const std::vector<std::string>& specs) {
            arguments->store = StoreOfTiers(specs);
            if (arguments->store.empty()) {
              throw CLI::ValidationError("--tier", "sessions are in a disk tier; give one as in disk:PATH");
            }
          },
          "Or the tiers as the chat had them: disk:PATH; its size does not count here")
      ->check(CheckTier)
      ->type_name("SPEC")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->excludes(store);
}

CLI::App* AddSubcommand(CLI::App* session, const char* name, const char* about,
                        const std::shared_ptr<SessionArguments>& arguments, Command* chosen,
                        int (*run)(const SessionArguments&)) {
  CLI::App* command = session->add_subcommand(name, about);
  AddStoreOptions(command, arguments);
  command->callback([=] { *chosen = [=] { return run(*arguments); }; });
  return command;
}

void AddJson(CLI::App* command, const std::shared_ptr<SessionArguments>& arguments, const char* about) {
  command->add_flag("--json", arguments->json, about);
}

void AddNames(CLI::App* command, const std::shared_ptr<SessionArguments>& arguments, int num_most) {
  command->add_option("NAME", arguments->names, "Of the session, as in `kvist chat --session NAME`")
      ->required()
      ->expected(1, num_most)
      ->allow_extra_args(num_most > 1)  // else it takes the next one, too, and complains of it
      ->type_name("");
}

void AddReplace(CLI::App* command, const std::shared_ptr<SessionArguments>& arguments, const char* about) {
  command->add_flag("--replace", arguments->replaces, about);
}

}  // namespace

void AddSessionCommand(CLI::App& program, Command* chosen) {
  constexpr int kMany = CLI::detail::expected_max_vector_size;
  constexpr char kOneObject[] = "Print one JSON object";
  CLI::App* session = program.add_subcommand("session", "List, show, remove, export and import saved sessions");
  session->require_subcommand(1);
  const auto arguments = std::make_shared<SessionArguments>();

  CLI::App* list = AddSubcommand(session, "list", "List the sessions of a store", arguments, chosen, RunList);
  AddJson(list, arguments, "Print one JSON object a session");

  CLI::App* show = AddSubcommand(session, "show", "Show a session and its messages", arguments, chosen, RunShow);
  AddNames(show, arguments, 1);
  AddJson(show, arguments, kOneObject);

  CLI::App* remove = AddSubcommand(session, "remove", "Remove sessions", arguments, chosen, RunRemove);
  AddNames(remove, arguments, kMany);

  CLI::App* to_file = AddSubcommand(session, "export", "Write a session and its keys and values to a file, unencrypted",
                                    arguments, chosen, RunExport);
  AddNames(to_file, arguments, 1);
  to_file->add_option("FILE", arguments->file, "File to write")->required()->type_name("");
  AddReplace(to_file, arguments, "Replace a file that is there");
  AddJson(to_file, arguments, kOneObject);

  CLI::App* from_file = AddSubcommand(session, "import", "Store an exported session; only from someone you trust",
                                      arguments, chosen, RunImport);
  from_file->add_option("FILE", arguments->file, "File that `kvist session export` wrote")->required()->type_name("");
  from_file->add_option("--name", arguments->names, "Name it gets, instead of its own")->expected(1)->type_name("NAME");
  AddReplace(from_file, arguments, "Replace a session of that name");
  AddJson(from_file, arguments, kOneObject);
}

}  // namespace kvist
