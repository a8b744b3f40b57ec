// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors

#include "model/chat_template.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>
#include <vector>

#include "model/utf8.h"

namespace kvist {
namespace {

using Details = ChatTemplate::Details;
using Messages = std::span<const ChatMessage>;

// White space as Python's str.strip() counts it, which is what Jinja's trim does.
bool IsSpace(std::string_view character) {
  constexpr std::string_view kSpaces[] = {
      "\t",     "\n",     "\v",     "\f",     "\r",     "\x1c",   "\x1d",   "\x1e",   "\x1f",   " ",
      "\u0085", "\u00a0", "\u1680", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006",
      "\u2007", "\u2008", "\u2009", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"};
  return std::find(std::begin(kSpaces), std::end(kSpaces), character) != std::end(kSpaces);
}

std::string_view Trim(std::string_view text) {
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t num_bytes = NextUtf8(text.substr(begin)).num_bytes;
    if (!IsSpace(text.substr(begin, num_bytes))) break;
    begin += num_bytes;
  }
  size_t end = begin;  // behind the last character that isn't white space
  for (size_t at = begin; at < text.size();) {
    const size_t num_bytes = NextUtf8(text.substr(at)).num_bytes;
    if (!IsSpace(text.substr(at, num_bytes))) end = at + num_bytes;
    at += num_bytes;
  }
  return text.substr(begin, end - begin);
}

std::string_view StripNewlines(std::string_view text, bool left, bool right) {
  if (left) text.remove_prefix(std::min(text.find_first_not_of('\n'), text.size()));
  if (right) text.remove_suffix(text.size() - (text.find_last_not_of('\n') + 1));
  return text;
}

template <class... Parts>
void Append(std::string& out, const Parts&... parts) {
  (out.append(parts), ...);
}

// Takes the system message off the front, where families put it elsewhere than in a turn of its own.
const ChatMessage* TakeSystem(Messages& messages) {
  if (messages[0].role != "system") return nullptr;
  const ChatMessage* system = &messages[0];
  messages = messages.subspan(1);
  return system;
}

Status CheckAlternation(Messages messages, const char* family) {
  for (size_t i = 0; i < messages.size(); ++i) {
    if ((messages[i].role == "user") == (i % 2 == 0)) continue;
    return Fail(ErrorCode::kInvalidArgument,
                std::string("the model's chat template (") + family +
                    ") wants user and assistant messages in turn, starting with user; message " + std::to_string(i) +
                    " after the system message is from '" + messages[i].role + "'.");
  }
  return {};
}

// The turns of ChatML: each role by name between <|im_start|> and <|im_end|>.
Result<std::string> RenderChatMl(const Details& details, Messages messages, bool prompt) {
  std::string out;
  if (messages[0].role != "system" && !details.default_system.empty()) {
    Append(out, "<|im_start|>system\n", details.default_system, "<|im_end|>\n");
  }
  for (const ChatMessage& message : messages) {
    Append(out, "<|im_start|>", message.role, "\n", message.content, "<|im_end|>\n");
  }
  if (prompt) out += details.generation_prompt;
  return out;
}

// An answer of a thinking model, split the way Qwen3's template does it.
struct Answer {
  std::string_view reasoning, content;
};

Answer SplitAnswer(std::string_view text) {
  const size_t first_end = text.find("</think>");
  if (first_end == std::string_view::npos) return {"", text};
  std::string_view reasoning = StripNewlines(text.substr(0, first_end), false, true);
  const size_t last_begin = reasoning.rfind("<think>");
  if (last_begin != std::string_view::npos) reasoning.remove_prefix(last_begin + std::string_view("<think>").size());
  const size_t last_end = text.rfind("</think>") + std::string_view("</think>").size();
  return {StripNewlines(reasoning, true, false), StripNewlines(text.substr(last_end), true, false)};
}

size_t LastQuery(Messages messages) {
  for (size_t i = messages.size(); i-- > 0;) {
    const std::string& content = messages[i].content;
    const bool is_tool = content.starts_with("<tool_response>") && content.ends_with("</tool_response>");
    if (messages[i].role == "user" && !is_tool) return i;
  }
  return messages.size() - 1;
}

// ChatML, but thoughts of earlier answers are left out and the last answer always shows where they would be.
Result<std::string> RenderQwen3(const Details& details, Messages messages, bool prompt) {
  std::string out;
  const size_t last_query = LastQuery(messages);
  for (size_t i = 0; i < messages.size(); ++i) {
    Append(out, "<|im_start|>", messages[i].role, "\n");
    if (messages[i].role != "assistant") {
      out += messages[i].content;
    } else {
      const Answer answer = SplitAnswer(messages[i].content);
      const bool is_last = i + 1 == messages.size();
      if (i > last_query && (is_last || !answer.reasoning.empty())) {
        Append(out, "<think>\n", StripNewlines(answer.reasoning, true, true), "\n</think>\n\n",
               StripNewlines(answer.content, true, false));
      } else {
        out += answer.content;
      }
    }
    out += "<|im_end|>\n";
  }
  if (prompt) out += details.generation_prompt;
  return out;
}

// No system turn: the system message opens the first user turn.
Result<std::string> RenderGemma(const Details& details, Messages messages, bool prompt) {
  std::string out = details.bos;
  const ChatMessage* system = TakeSystem(messages);
  if (system != nullptr && details.refuses_system) {
    return Fail(ErrorCode::kInvalidArgument,
                "the model's chat template (gemma) takes no system message; put it into the first user message.");
  }
  KVIST_TRY_VOID(CheckAlternation(messages, "gemma"));
  for (size_t i = 0; i < messages.size(); ++i) {
    Append(out, "<start_of_turn>", messages[i].role == "assistant" ? "model" : messages[i].role, "\n");
    if (i == 0 && system != nullptr) Append(out, system->content, "\n\n");
    Append(out, Trim(messages[i].content), "<end_of_turn>\n");
  }
  if (prompt) out += details.generation_prompt;
  return out;
}

Result<std::string> RenderLlama2(const Details& details, Messages messages, bool) {
  const ChatMessage* system = TakeSystem(messages);
  KVIST_TRY_VOID(CheckAlternation(messages, "llama2"));
  std::string out;
  for (size_t i = 0; i < messages.size(); ++i) {
    std::string content = messages[i].content;
    if (i == 0 && system != nullptr) content = "<<SYS>>\n" + system->content + "\n<</SYS>>\n\n" + content;
    if (messages[i].role == "user") {
      Append(out, details.bos, "[INST] ", Trim(content), " [/INST]");
    } else if (messages[i].role == "assistant") {
      Append(out, " ", Trim(content), " ", details.eos);
    }
  }
  return out;
}

void AppendLlama3Turn(std::string& out, std::string_view role, std::string_view content) {
  Append(out, "<|start_header_id|>", role, "<|end_header_id|>\n\n", Trim(content), "<|eot_id|>");
}

Result<std::string> RenderLlama3(const Details& details, Messages messages, bool prompt) {
  std::string out = details.bos;
  for (const ChatMessage& message : messages) AppendLlama3Turn(out, message.role, message.content);
  if (prompt || details.always_prompts) out += details.generation_prompt;
  return out;
}

// Always a system turn, with the dates the template falls back to: today's date would make every day's prefixes new.
Result<std::string> RenderLlama31(const Details& details, Messages messages, bool prompt) {
  std::string out = details.bos;
  const ChatMessage* system = TakeSystem(messages);
  Append(out, "<|start_header_id|>system<|end_header_id|>\n\n",
         "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n",
         system == nullptr ? std::string_view() : Trim(system->content), "<|eot_id|>");
  for (const ChatMessage& message : messages) AppendLlama3Turn(out, message.role, message.content);
  if (prompt) out += details.generation_prompt;
  return out;
}

bool CarriesSystem(const Details& details, Messages messages, size_t i) {
  switch (details.system_goes) {
    case Details::SystemGoes::kNowhere:
      return false;
    case Details::SystemGoes::kFirst:
      return i == 0;
    case Details::SystemGoes::kLast:
      return i + 1 == messages.size();
    case Details::SystemGoes::kLastUser: {
      const size_t last_user = messages.size() - 1 - (messages.back().role == "user" ? 0 : 1);
      return messages[i].content == messages[last_user].content;  // the template compares the messages, not places
    }
  }
  return false;
}

Result<std::string> RenderMistral(const Details& details, Messages messages, bool) {
  const ChatMessage* system = TakeSystem(messages);
  if (system != nullptr && details.system_goes == Details::SystemGoes::kNowhere) {
    return Fail(ErrorCode::kInvalidArgument,
                "the model's chat template (mistral) takes no system message; put it into the first user message.");
  }
  KVIST_TRY_VOID(CheckAlternation(messages, "mistral"));
  std::string out = details.bos;
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    if (message.role == "user") {
      out += details.instruction_begin;
      if (system != nullptr && CarriesSystem(details, messages, i)) Append(out, system->content, "\n\n");
      Append(out, message.content, details.instruction_end);
    } else if (message.role == "assistant") {
      const std::string_view content = details.trims_answer ? Trim(message.content) : message.content;
      Append(out, details.answer_begin, content, details.answer_end);
    } else {
      return Fail(ErrorCode::kInvalidArgument,
                  "the model's chat template (mistral) takes a system message only at the start.");
    }
  }
  return out;
}

Result<std::string> RenderPhi3(const Details& details, Messages messages, bool prompt) {
  std::string out;
  for (const ChatMessage& message : messages) {
    Append(out, "<|", message.role, "|>\n", message.content, "<|end|>\n");
  }
  out += prompt ? details.generation_prompt : details.eos_at_end;
  return out;
}

// The first Phi-3 templates: every user turn opens the answer, and a system message is not shown to the model.
Result<std::string> RenderFirstPhi3(const Details& details, Messages messages, bool) {
  std::string out = details.bos;
  for (const ChatMessage& message : messages) {
    if (message.role == "user") Append(out, "<|user|>\n", message.content, "<|end|>\n<|assistant|>\n");
    if (message.role == "assistant") Append(out, message.content, "<|end|>\n");
  }
  return out;
}

Result<std::string> RenderPhi4(const Details& details, Messages messages, bool prompt) {
  std::string out;
  for (const ChatMessage& message : messages) {
    Append(out, "<|im_start|>", message.role, "<|im_sep|>", message.content, "<|im_end|>");
  }
  if (prompt) out += details.generation_prompt;
  return out;
}

Result<std::string> RenderPhi4Mini(const Details& details, Messages messages, bool prompt) {
  std::string out;
  for (const ChatMessage& message : messages) Append(out, "<|", message.role, "|>", message.content, "<|end|>");
  out += prompt ? details.generation_prompt : details.eos_at_end;
  return out;
}

// A template's text with one kind of quotes and real newlines, so that spellings of one thing compare equal.
std::string Normalised(std::string_view source) {
  std::string out;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source.substr(i, 2) == "\\n") {
      out += '\n';
      ++i;
    } else {
      out += source[i] == '\'' ? '"' : source[i];
    }
  }
  return out;
}

// Whether the source has all of the parts.
bool Has(std::string_view source, std::initializer_list<std::string_view> parts) {
  return std::all_of(parts.begin(), parts.end(), [&](std::string_view part) { return source.contains(part); });
}

// The text of a system turn that the template writes out itself, without pasting in anything.
std::string WrittenSystem(std::string_view source) {
  constexpr std::string_view kBegin = "<|im_start|>system\n";
  for (size_t at = 0; (at = source.find(kBegin, at)) != std::string_view::npos;) {
    at += kBegin.size();
    const std::string_view text = source.substr(at, source.find("<|im_end|>", at) - at);
    if (!text.empty() && text.find('"') == std::string_view::npos) return std::string(text);
  }
  return "";
}

bool ReadChatMl(std::string_view source, Details& details) {
  if (!Has(source, {"<|im_start|>", "<|im_end|>", "add_generation_prompt", "<|im_start|>assistant\n"})) return false;
  // Relatives that change the messages' text or speak of thoughts are not this family.
  for (const char* relative : {"<|im_sep|>", "trim", "strip(", "<think>", "[INST]"}) {
    if (source.contains(relative)) return false;
  }
  details.default_system = WrittenSystem(source);
  details.generation_prompt = "<|im_start|>assistant\n";
  return true;
}

bool ReadQwen3(std::string_view source, Details& details) {
  if (!Has(source, {"<|im_start|>", "<|im_end|>", "</think>", "last_query_index", "reasoning_content"})) return false;
  details.generation_prompt = "<|im_start|>assistant\n";
  if (source.contains("<|im_start|>assistant\n<think>\n\"")) details.generation_prompt += "<think>\n";
  return true;
}

bool ReadGemma(std::string_view source, Details& details) {
  if (!Has(source, {"<start_of_turn>", "<end_of_turn>\n", "trim", "\"model\""})) return false;
  details.refuses_system = source.contains("System role not supported");
  details.generation_prompt = "<start_of_turn>model\n";
  return details.refuses_system || source.contains("first_user_prefix");
}

bool ReadLlama2(std::string_view source, Details&) {
  return Has(source, {"<<SYS>>\n", "[INST] ", " [/INST]", "bos_token + \"[INST] \"", "content.strip()"}) &&
         !source.contains("DEFAULT_SYSTEM");
}

bool ReadLlama3(std::string_view source, Details& details) {
  if (!Has(source, {"<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>", "trim"})) return false;
  details.generation_prompt = "<|start_header_id|>assistant<|end_header_id|>\n\n";
  details.always_prompts = !source.contains("add_generation_prompt");
  return !source.contains("Cutting Knowledge Date");
}

bool ReadLlama31(std::string_view source, Details& details) {
  details.generation_prompt = "<|start_header_id|>assistant<|end_header_id|>\n\n";
  return Has(source, {"<|start_header_id|>", "<|eot_id|>", "Cutting Knowledge Date: December 2023\n",
                      "Today Date: ", "26 Jul 2024"});
}

bool ReadMistral(std::string_view source, Details& details) {
  if (!Has(source, {"[INST] \"", "[/INST]\"", "bos_token", "eos_token"}) || source.contains("<<SYS>>")) return false;
  details.instruction_begin = source.contains("\" [INST] \"") ? " [INST] " : "[INST] ";
  details.instruction_end = source.contains("\" [/INST]\"") ? " [/INST]" : "[/INST]";
  details.answer_begin = source.contains("\" \" + message[\"content\"]") ? " " : "";
  details.answer_end = details.eos + (source.contains("eos_token + \" \"") ? " " : "");
  details.trims_answer = Has(source, {"message[\"content\"]|trim + eos_token"});
  if (!source.contains("system_message")) return true;
  if (source.contains("loop.last and system_message is defined")) {
    details.system_goes = Details::SystemGoes::kLast;
  } else if (source.contains("loop.first and system_message is defined")) {
    details.system_goes = Details::SystemGoes::kFirst;
  } else if (source.contains("(message == user_messages[-1]) and system_message is defined")) {
    details.system_goes = Details::SystemGoes::kLastUser;
  }
  return details.system_goes != Details::SystemGoes::kNowhere;
}

bool ReadPhi3(std::string_view source, Details& details) {
  if (!Has(source, {"<|user|>\n", "<|system|>\n", "<|assistant|>\n", "<|end|>\n", "add_generation_prompt"}))
    return false;
  details.generation_prompt = "<|assistant|>\n";
  if (source.contains("eos_token")) details.eos_at_end = details.eos;
  return !source.contains("bos_token");
}

bool ReadFirstPhi3(std::string_view source, Details& details) {
  if (!Has(source, {"\"<|user|>\" + \"\n\"", "\"<|end|>\" + \"\n\" + \"<|assistant|>\" + \"\n\""})) return false;
  if (!source.contains("bos_token")) details.bos.clear();
  return !source.contains("add_generation_prompt") && !source.contains("system");
}

bool ReadPhi4(std::string_view source, Details& details) {
  details.generation_prompt = "<|im_start|>assistant<|im_sep|>";
  return Has(source,
             {"<|im_start|>system<|im_sep|>", "<|im_start|>user<|im_sep|>", "<|im_end|>", "add_generation_prompt"}) &&
         !source.contains("<|im_end|><|im_start|>assistant");
}

bool ReadPhi4Mini(std::string_view source, Details& details) {
  if (!Has(source, {"\"<|\" + message[\"role\"] + \"|>\" + message[\"content\"] + \"<|end|>\"", "<|assistant|>",
                    "add_generation_prompt"})) {
    return false;
  }
  details.generation_prompt = "<|assistant|>";
  if (source.contains("eos_token")) details.eos_at_end = details.eos;
  return true;
}

// The name of the token whose id is under `key`; "" when the file names none.
Result<std::string> TokenName(const GgufFile& file, const std::string& key) {
  const GgufValue* tokens = file.Find("tokenizer.ggml.tokens");
  const auto* names = tokens == nullptr ? nullptr : std::get_if<std::vector<std::string_view>>(tokens);
  if (names == nullptr || file.Find(key) == nullptr) return "";
  KVIST_TRY(const uint64_t id, file.GetUint(key));
  if (id < names->size()) return std::string((*names)[id]);
  return Fail(ErrorCode::kCorrupt, file.path() + ": " + key + " is no token of the vocabulary; get the file again.");
}

}  // namespace

struct ChatTemplate::Family {
  std::string_view name;
  bool (*read)(std::string_view source, Details& details);  // whether the template is of this family
  Result<std::string> (*render)(const Details& details, Messages messages, bool prompt);
};

namespace {

const ChatTemplate::Family kTemplateFamilies[] = {
    {"chatml", ReadChatMl, RenderChatMl},        {"qwen3", ReadQwen3, RenderQwen3},
    {"gemma", ReadGemma, RenderGemma},           {"llama2", ReadLlama2, RenderLlama2},
    {"llama3", ReadLlama3, RenderLlama3},        {"llama3.1", ReadLlama31, RenderLlama31},
    {"mistral", ReadMistral, RenderMistral},     {"phi3", ReadPhi3, RenderPhi3},
    {"phi3", ReadFirstPhi3, RenderFirstPhi3},    {"phi4", ReadPhi4, RenderPhi4},
    {"phi4-mini", ReadPhi4Mini, RenderPhi4Mini},
};

}  // namespace

ChatTemplate::ChatTemplate(const Family* family, Details details) : family_(family), details_(std::move(details)) {}

Result<ChatTemplate> ChatTemplate::Open(const GgufFile& file) {
  KVIST_TRY(const std::string_view source, file.StringOr("tokenizer.chat_template", ""));
  if (source.empty()) {
    return Fail(ErrorCode::kUnsupported, file.path() +
                                             " has no chat template (a base model, not trained to chat); "
                                             "use --no-template to send the plain text.");
  }
  KVIST_TRY(const std::string bos, TokenName(file, "tokenizer.ggml.bos_token_id"));
  KVIST_TRY(const std::string eos, TokenName(file, "tokenizer.ggml.eos_token_id"));
  return Parse(source, bos, eos);
}

Result<ChatTemplate> ChatTemplate::Parse(std::string_view source, std::string_view bos, std::string_view eos) {
  const std::string normalised = Normalised(source);
  for (const Family& family : kTemplateFamilies) {
    Details details;
    details.bos = bos;
    details.eos = eos;
    if (family.read(normalised, details)) return ChatTemplate(&family, std::move(details));
  }
  const std::string_view beginning = source.substr(0, 60);
  return Fail(ErrorCode::kUnsupported, "the model's chat template is not one that is known (it begins '" +
                                           std::string(beginning.substr(0, ValidUtf8Prefix(beginning))) +
                                           "'); use --no-template to send the plain text.");
}

Result<std::string> ChatTemplate::Render(Messages messages, bool add_generation_prompt) const {
  if (messages.empty()) return Fail(ErrorCode::kInvalidArgument, "a conversation needs at least one message.");
  for (const ChatMessage& message : messages) {
    if (message.role == "system" || message.role == "user" || message.role == "assistant") continue;
    return Fail(ErrorCode::kInvalidArgument,
                "the role '" + message.role.substr(0, 60) + "' is not one of system, user and assistant.");
  }
  return family_->render(details_, messages, add_generation_prompt);
}

std::string_view ChatTemplate::family() const {
  return family_->name;
}

}  // namespace kvist
