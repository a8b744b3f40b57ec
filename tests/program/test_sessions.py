#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""Saved sessions and the folders they are in, as users of the kvist program meet them.

Usage: test_sessions.py PROGRAM [unittest options]. What needs a model runs on smollm2, found where the program finds it,
and is skipped where it is not."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import json_schema

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "docs" / "results.schema.json").read_text())
PROGRAM = "kvist"


def run(*arguments, stdin=b"", **options):
    """The finished program; its output as bytes."""
    return subprocess.run(
        [PROGRAM, *map(str, arguments)], input=stdin, capture_output=True, timeout=100, check=False, **options
    )


def models_folder():
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return pathlib.Path(os.environ.get("KVIST_MODELS_DIR") or pathlib.Path(data) / "kvist" / "models")


needs_model = unittest.skipUnless((models_folder() / "smollm2.gguf").is_file(), "smollm2 is not fetched")


def chat(store, name, *messages):
    """What `kvist chat` said of the session, after it answered each message with a few words."""
    lines = "".join(message + "\n" for message in messages).encode()
    options = ("-m", "smollm2", "--threads=1", "-n", 4, "--session", name, "--tier", f"disk:{store}")
    return run("chat", *options, stdin=lines)


def contents(folder):
    """Every file and folder with its content and the time it was changed."""
    return {
        path.relative_to(folder): (path.read_bytes() if path.is_file() else None, path.stat().st_mtime_ns)
        for path in (folder, *folder.rglob("*"))
    }


def flip(path, place):
    """Changes one bit of the byte at that share of the file."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 1
    path.write_bytes(data)


class SessionTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def assert_ok(self, result):
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        return result.stdout

    def assert_fails(self, result, code, *words):
        """A sentence on stderr that holds the words, nothing on stdout, and that exit code."""
        text = result.stderr.decode()
        self.assertEqual(result.returncode, code, text)
        self.assertEqual(result.stdout, b"")
        self.assertTrue(text.startswith("kvist: error: "), text)
        for word in words:
            self.assertIn(str(word), text)

    def objects(self, result, code=0):
        """The JSON objects a command printed, each as the schema wants it."""
        self.assertEqual(result.returncode, code, result.stderr.decode())
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        for line in lines:
            self.assertEqual(json_schema.faults(line, SCHEMA), [])
        return lines


class WithoutModel(SessionTest):
    def test_every_command_has_help(self):
        for command in ("", "list", "show", "remove", "export", "import"):
            with self.subTest(command):
                self.assertIn(b"-h", self.assert_ok(run("session", *command.split(), "--help")))
        self.assertIn(b"--verify", self.assert_ok(run("inspect", "--help")))

    def test_wrong_use_is_told_with_exit_code_2(self):
        cases = [
            (["session"], "subcommand"),
            (["session", "dance"], "dance"),
            (["session", "show"], "NAME"),
            (["session", "show", "a", "b"], "b"),
            (["session", "remove"], "NAME"),
            (["session", "export", "a"], "FILE"),
            (["session", "import"], "FILE"),
            (["inspect", "smollm2", "--verify"], "stores"),
            (["inspect", "nonesuch", "--records"], "stores"),
        ]
        for arguments, word in cases:
            with self.subTest(arguments):
                self.assert_fails(run(*arguments), 2, word)

    def test_other_folders_are_refused_and_left_as_they_are(self):
        (self.folder / "segments").mkdir()  # one of a store's two
        (self.folder / "mine.txt").write_bytes(b"mine")
        before = contents(self.folder)
        store = ("--store", self.folder)
        self.assert_fails(run("inspect", self.folder), 2, self.folder, "no store")
        self.assert_fails(run("inspect", self.folder, "--verify"), 2, "no store")
        self.assert_fails(run("session", "list", *store), 2, "no store")
        self.assert_fails(run("session", "show", "x", *store), 2, "no store")
        self.assert_fails(run("session", "remove", "x", *store), 2, "no store")
        self.assert_fails(run("session", "export", "x", self.folder / "x", *store), 2, "no store")
        self.assertEqual(contents(self.folder), before)

    def test_stores_that_are_not_there_are_not_made(self):
        store = ("--store", self.folder / "none")
        for command in (["list"], ["show", "x"], ["remove", "x"], ["export", "x", self.folder / "x"]):
            with self.subTest(command):
                self.assert_fails(run("session", *command, *store), 1, "there is no store", "none")
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_what_was_looked_for_and_where_is_told(self):
        for name in ("segments", "sessions"):
            (self.folder / name).mkdir()
        store = ("--store", self.folder)
        self.assert_fails(run("session", "show", "trip", *store), 1, "'trip'", self.folder, "session list")
        self.assert_fails(run("session", "remove", "trip", *store), 1, "trip", self.folder, "session list")
        self.assert_fails(run("session", "export", "trip", self.folder / "x", *store), 1, "trip", self.folder)
        self.assert_fails(run("session", "show", "trip", "--store", "/none"), 1, "no store at /none", "--tier disk:PATH")
        tier = ("--tier", "redis://localhost", "--tier", f"disk:{self.folder},size=8G")
        result = run("session", "list", *tier)
        self.assertEqual(self.assert_ok(result), b"")
        self.assertIn(f"no sessions in {self.folder};", result.stderr.decode())
        self.assert_fails(run("session", "list", *tier[:2]), 2, "--tier", "disk:PATH")
        self.assert_fails(run("session", "list", *tier, *store), 2, "--store", "--tier")

    def test_a_store_that_cant_be_seen_is_no_store_that_is_missing(self):
        place = self.folder / "kvist" / "store"
        place.parent.mkdir()
        place.symlink_to(place)
        environment = {**os.environ, "XDG_DATA_HOME": str(self.folder)}
        for command in (["list"], ["show", "trip"], ["remove", "trip"]):
            with self.subTest(command):
                self.assert_fails(run("session", *command, env=environment), 1, "can't be read", place)

    def test_nobody_has_sessions_at_first(self):
        environment = {**os.environ, "XDG_DATA_HOME": str(self.folder)}
        result = run("session", "list", env=environment)
        self.assertEqual(self.assert_ok(result), b"")
        self.assertIn(b"no sessions", result.stderr)
        self.assertEqual(self.objects(run("session", "list", "--json", env=environment)), [])
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_an_empty_store_is_shown(self):
        for name in ("segments", "sessions"):
            (self.folder / name).mkdir()
        before = contents(self.folder)
        (store,) = self.objects(run("inspect", self.folder, "--json", "--verify"))
        self.assertEqual((store["bytes"], store["records"], store["kinds"], store["sessions"]), (0, 0, [], []))
        self.assertIn(b"0 records, 0 sessions", self.assert_ok(run("inspect", self.folder, "--records")))
        self.assertEqual(contents(self.folder), before)

    def test_files_that_are_no_exports_are_refused_before_a_store_is_made(self):
        (self.folder / "text").write_bytes(b"hello, I am no session")
        store = ("--store", self.folder / "store")
        self.assert_fails(run("session", "import", self.folder / "text", *store), 1, "not an exported session")
        self.assert_fails(run("session", "import", self.folder / "none", *store), 1, "there is no file")
        self.assert_fails(run("session", "import", self.folder, *store), 2, "not a file")
        self.assertFalse((self.folder / "store").exists())


@needs_model
class WithModel(SessionTest):
    @classmethod
    def setUpClass(cls):
        made = tempfile.TemporaryDirectory()
        cls.addClassCleanup(made.cleanup)
        cls.made = pathlib.Path(made.name) / "store"
        cls.first = chat(cls.made, "trip", "Name a city in France.")

    def setUp(self):
        super().setUp()
        self.store = self.folder / "store"
        shutil.copytree(self.made, self.store)

    def session(self, *arguments, store=None):
        return run("session", *arguments, "--store", store or self.store)

    def segment(self):
        return next((self.store / "segments").glob("*.seg"))

    def test_a_session_goes_on(self):
        self.assert_ok(self.first)
        self.assertIn(b"'trip' begins", self.first.stderr)
        again = chat(self.store, "trip", "And one in Spain.")
        self.assert_ok(again)
        (listed,) = self.objects(run("session", "list", "--store", self.made, "--json"))
        self.assertIn(f"{listed['tokens']} of {listed['tokens']} tokens restored", again.stderr.decode())
        (details,) = self.objects(self.session("show", "trip", "--json"))
        self.assertGreater(details["session"]["tokens"], listed["tokens"])
        roles = [message["role"] for message in details["messages"]]
        self.assertEqual(roles[-4:], ["user", "assistant", "user", "assistant"])
        self.assertEqual(details["messages"][-2]["content"], "And one in Spain.")

    def test_a_session_that_outgrows_its_tier_says_so(self):
        store = f"{self.folder}/small,size=2M"
        told = [chat(store, "grow", f"Tell me of the {animal}, its food and its house, in many words." * 3)
                for animal in ("dog", "cat", "cow")]
        self.assertEqual(told[-1].returncode, 1, told[-1].stderr.decode())
        for words in ("'grow' is not saved", "larger size", "not of the saved one"):
            self.assertIn(words, told[-1].stderr.decode())

    def test_sessions_are_listed_and_shown(self):
        (listed,) = self.objects(self.session("list", "--json"))
        self.assertEqual((listed["name"], listed["form"], listed["missing_records"]), ("trip", "f16", 0))
        self.assertEqual(listed["records"], -(-listed["tokens"] // 32))
        text = self.assert_ok(self.session("list")).decode()
        for word in ("trip", "f16", str(listed["tokens"]), "all there"):
            self.assertIn(word, text)
        self.assertIn(str(self.store), text)
        self.assertEqual(self.assert_ok(run("session", "list", "--tier", f"disk:{self.store},size=1G")).decode(), text)
        self.assertIn("Name a city in France.", self.assert_ok(self.session("show", "trip")).decode())
        self.assert_fails(self.session("show", "other"), 1, "'other'", self.store)

    def test_inspecting_shows_everything_and_changes_nothing(self):
        (self.store / "tmp" / ("0" * 32)).write_bytes(b"of a process that is dead")
        before = contents(self.store)
        store, *records = self.objects(run("inspect", self.store, "--json", "--verify", "--records"))
        self.assertEqual(len(records), store["records"])
        self.assertEqual(store["verification"], {"records": len(records), "faults": []})
        self.assertEqual(sum(kind["records"] for kind in store["kinds"]), len(records))
        self.assertEqual(sum(kind["tokens"] for kind in store["kinds"]), sum(r["tokens"] for r in records))
        on_disk = sum(path.stat().st_size for path in self.store.glob("se*/*"))
        self.assertTrue(on_disk <= store["bytes"] < on_disk + 4096 * 4, (on_disk, store["bytes"]))
        self.assertEqual([session["name"] for session in store["sessions"]], ["trip"])
        self.assertEqual(sum(record["session"] for record in records), store["sessions"][0]["records"])
        text = self.assert_ok(run("inspect", self.store, "--records", "--verify")).decode()
        for word in ("1 session", "0 faults", "trip", "all there", "open", records[0]["key"]):
            self.assertIn(word, text)
        self.assertEqual(contents(self.store), before)

    def test_damage_is_found(self):
        flip(self.segment(), 0.9)
        before = contents(self.store)
        (store,) = self.objects(run("inspect", self.store, "--json", "--verify"), code=1)
        (fault,) = store["verification"]["faults"]
        self.assertEqual(fault["file"], "segments/" + self.segment().name)
        self.assertEqual(store["verification"]["records"], store["records"] - 1)
        result = run("inspect", self.store, "--verify")
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"1 fault; what is damaged is never used", result.stderr)
        self.assertIn(fault["what"], result.stdout.decode())
        self.assertEqual(contents(self.store), before)
        export = self.folder / "trip.export"
        self.assert_fails(self.session("export", "trip", export), 1, "record", "not what was stored")
        self.assertFalse(export.exists())

    def test_damage_that_was_met_is_mended_when_the_text_is_written_again(self):
        flip(self.segment(), 0.25)  # a full block: one that is not grows with the conversation, and is another then
        again = chat(self.store, "trip", "And one in Spain.")
        self.assert_ok(again)
        self.assertIn(b"(damaged)", again.stderr)
        (store,) = self.objects(run("inspect", self.store, "--json", "--verify"))
        self.assertEqual(store["verification"], {"records": store["records"], "faults": []})

    def test_damaged_tables_and_missing_records_are_told(self):
        flip(self.segment(), 0)  # not a segment any more: somebody else's file
        (session,) = self.objects(self.session("list", "--json"))
        self.assertEqual(session["missing_records"], session["records"])
        self.assertIn("missing", self.assert_ok(self.session("list")).decode())
        (store,) = self.objects(run("inspect", self.store, "--json", "--verify"), code=1)
        self.assertEqual([fault["file"] for fault in store["verification"]["faults"]], ["sessions/trip.session"])
        self.assert_fails(self.session("export", "trip", self.folder / "x"), 1, "not there any more")
        flip(self.store / "sessions" / "trip.session", 0.5)
        (session,) = self.objects(self.session("list", "--json"))
        self.assertIn("damaged", session["fault"])
        self.assert_fails(self.session("show", "trip"), 1, "trip", "damaged")
        self.assertIn(b"damaged", self.assert_ok(run("inspect", self.store)))

    def test_a_session_is_taken_to_another_store(self):
        export, other = self.folder / "trip.export", self.folder / "other"
        (exported,) = self.objects(self.session("export", "trip", export, "--json"))
        self.assertEqual((exported["bytes"], export.stat().st_mode & 0o777), (export.stat().st_size, 0o600))
        self.assert_fails(self.session("export", "trip", export), 1, "there already", "--replace")
        self.assertIn(b"trip: ", self.assert_ok(self.session("export", "trip", export, "--replace")))
        self.assertEqual([path.name for path in self.folder.iterdir() if path.is_file()], ["trip.export"])
        (imported,) = self.objects(self.session("import", export, "--json", store=other))
        self.assertEqual((imported["name"], imported["records"]), ("trip", exported["records"]))
        self.assert_fails(self.session("import", export, store=other), 1, "session trip already", "--replace")
        self.assert_fails(self.session("import", export, "--name", "../x", store=other), 2, "letters")
        self.assert_ok(self.session("import", export, "--replace", store=other))
        self.assert_ok(self.session("import", export, "--name", "copy", store=other))
        names = [session["name"] for session in self.objects(self.session("list", "--json", store=other))]
        self.assertEqual(names, ["copy", "trip"])
        tokens = self.objects(self.session("show", "copy", "--json", store=other))[0]["session"]["tokens"]
        again = chat(other, "copy", "And one in Spain.")
        self.assert_ok(again)
        self.assertIn(f"{tokens} of {tokens} tokens restored", again.stderr.decode())
        self.assertNotIn("computed again", again.stderr.decode())

    def test_damaged_exports_are_refused_before_anything_is_stored(self):
        export, other = self.folder / "trip.export", self.folder / "other"
        self.assert_ok(self.session("export", "trip", export))
        whole = export.read_bytes()
        export.write_bytes(whole[:-1])
        self.assert_fails(self.session("import", export, store=other), 1, export, "truncated", len(whole) - 1)
        export.write_bytes(whole[:8] + b"\2" + whole[9:])
        self.assert_fails(self.session("import", export, store=other), 1, "newer kvist", "version 2")
        export.write_bytes(whole)
        flip(export, 0.9)
        self.assert_fails(self.session("import", export, store=other), 1, export, "damaged", "record", "at byte")
        self.assertFalse(other.exists())
        export.write_bytes(whole)
        other.mkdir()
        (other / "mine.txt").write_bytes(b"mine")
        self.assert_fails(self.session("import", export, store=other), 2, "no store")
        self.assertEqual([path.name for path in other.iterdir()], ["mine.txt"])

    def test_sessions_are_removed(self):
        export = self.folder / "trip.export"
        self.assert_ok(self.session("export", "trip", export))
        self.assert_ok(self.session("import", export, "--name", "copy"))
        result = self.session("remove", "copy", "none", "../x")
        self.assert_fails(result, 2, "no session none", "letters")
        self.assertEqual([session["name"] for session in self.objects(self.session("list", "--json"))], ["trip"])
        self.assertEqual(self.assert_ok(self.session("remove", "trip")), b"")
        self.assertEqual(self.objects(self.session("list", "--json")), [])
        (store,) = self.objects(run("inspect", self.store, "--json"))
        self.assertGreater(store["records"], 0)  # they may be evicted now, but nothing wants the room


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: test_sessions.py PROGRAM [unittest options]")
    PROGRAM = os.path.abspath(sys.argv.pop(1))
    unittest.main()
