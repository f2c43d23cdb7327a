"""Outputs go where they are sent: a file, through a link, a FIFO, a device, standard output; or they are refused."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest
import torch

from sparsight.cli.entry import main
from sparsight.records import load_masks, save_masks
from sparsight.records.files import DamagedFile, read_json, read_lines, write_atomically, write_json
from sparsight.records.outputs import check_output, write_output
from sparsight.records.tensors import read_tensors, write_tensors
from sparsight.runs.study import write_csv, write_markdown

MASKS = {"w": torch.tensor([[True, False], [True, True]])}

WRITERS = {
    "bytes": lambda path: write_output(path, [b"one ", b"two\n"]),
    "csv": lambda path: write_csv([{"a": 1}], path),
    "markdown": lambda path: write_markdown([{"a": 1}], path),
    "masks": lambda path: save_masks(MASKS, path),
}


@pytest.fixture(params=WRITERS)
def write(request):
    return WRITERS[request.param]


def expected(write, tmp_path: Path) -> bytes:
    (tmp_path / "plain").mkdir()
    write(tmp_path / "plain" / "f")
    return (tmp_path / "plain" / "f").read_bytes()


# -- where they go ---------------------------------------------------------------------------------------------


def test_a_file_is_replaced_and_keeps_its_permissions(write, tmp_path):
    whole, path = expected(write, tmp_path), tmp_path / "f"
    path.write_text("old")
    path.chmod(0o640)
    write(path)
    assert path.read_bytes() == whole
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f", "plain"]


@pytest.mark.parametrize("there", [True, False], ids=["there", "dangling"])
def test_a_link_stays_and_what_it_leads_to_is_replaced(write, tmp_path, there):
    whole, link, real = expected(write, tmp_path), tmp_path / "link", tmp_path / "elsewhere" / "real"
    real.parent.mkdir()
    if there:
        real.write_text("old")
    (tmp_path / "middle").symlink_to(real)
    link.symlink_to("middle")
    write(link)
    assert link.is_symlink()
    assert real.read_bytes() == whole
    assert [p.name for p in real.parent.iterdir()] == ["real"]


def test_a_fifo_is_written_to(write, tmp_path):
    whole, fifo, read = expected(write, tmp_path), tmp_path / "fifo", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()
    write(fifo)
    reader.join()
    assert read == [whole]
    assert stat.S_ISFIFO(fifo.lstat().st_mode)


def test_a_device_is_written_to(write):
    """As root, a rename over it would replace the device for the whole machine."""
    before = os.stat("/dev/null")
    write(Path("/dev/null"))
    assert (os.stat("/dev/null").st_rdev, os.stat("/dev/null").st_ino) == (before.st_rdev, before.st_ino)
    with pytest.raises(OSError, match="cannot write /dev/full: No space left") as caught:
        write(Path("/dev/full"))
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1"])
def test_standard_output_is_written_to(write, tmp_path, monkeypatch, capfdbinary, name):
    whole = expected(write, tmp_path)
    monkeypatch.chdir(tmp_path)
    capfdbinary.readouterr()
    write(Path(name))
    assert capfdbinary.readouterr().out == whole
    assert sorted(os.listdir()) == ["plain"]


def test_a_folder_is_refused_and_so_is_a_file_in_none(write, tmp_path):
    (tmp_path / "d" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match=f"cannot write {tmp_path / 'd'}: it is a folder"):
        write(tmp_path / "d")
    with pytest.raises(OSError, match="its folder is gone"):
        write(tmp_path / "no" / "f")
    with pytest.raises(OSError, match="take a shorter name"):
        write(tmp_path / ("x" * 300))
    assert os.listdir(tmp_path) == ["d"]


def test_a_name_that_just_fits_is_no_longer_while_it_is_written(write, tmp_path):
    write(tmp_path / ("x" * 255))
    assert os.listdir(tmp_path) == ["x" * 255]


def test_outputs_are_checked_before_the_work(tmp_path):
    for path in (tmp_path / "f", Path("-"), Path("/dev/null")):
        check_output(path)
    with pytest.raises(IsADirectoryError):
        check_output(tmp_path)
    with pytest.raises(FileNotFoundError, match="the folder"):
        check_output(tmp_path / "no" / "f")


# -- records: nothing special is replaced, and no link is followed -----------------------------------------------


def test_a_record_never_takes_the_place_of_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for write in (
        lambda p: write_atomically(p, [b"x"]),
        lambda p: write_json(p, {}),
        lambda p: write_tensors(p, {}, {}),
    ):
        with pytest.raises(OSError, match=r"it is not a regular file.*move away what is in its place"):
            write(tmp_path / "fifo")
    assert [p.name for p in tmp_path.iterdir()] == ["fifo"]
    assert stat.S_ISFIFO((tmp_path / "fifo").lstat().st_mode)


def test_a_record_replaces_a_link_of_its_name_and_not_what_it_leads_to(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "run.json").symlink_to("precious")
    write_json(tmp_path / "run.json", {"a": 1})
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "run.json").is_symlink()
    assert read_json(tmp_path / "run.json", "") == {"a": 1}


def test_what_is_being_written_never_goes_through_a_link(tmp_path, monkeypatch):
    (tmp_path / "precious").write_text("mine")
    monkeypatch.setattr("secrets.token_hex", lambda n: "guessed")
    (tmp_path / ".guessed.part").symlink_to("precious")
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "f", [b"theirs"])
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "f").exists()


def test_what_is_being_written_has_a_name_that_nobody_guesses(tmp_path, monkeypatch):
    seen, replace = set(), os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.add(Path(a).name), replace(a, b)))
    for _ in range(3):
        write_atomically(tmp_path / "f", [b"x"])
    assert len(seen) == 3
    assert all(name.startswith(".") and name.endswith(".part") and len(name) == 22 for name in seen)


@pytest.mark.parametrize("read", [read_json, read_lines, read_tensors, lambda p, remedy: load_masks(p)])
def test_a_fifo_or_a_device_as_a_record_is_refused_at_once(tmp_path, read):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(DamagedFile, match=f"{path} is damaged: it is not a regular file"):
            read(path, "ask")


def test_a_path_that_is_not_utf8_is_read(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    write_tensors(path, {"a": torch.arange(3)}, {"f": 1})
    tensors, facts, _ = read_tensors(path, "ask")
    assert torch.equal(tensors["a"], torch.arange(3))
    assert facts == {"f": 1}


def test_a_folder_that_has_gone_is_not_said_to_be_intact(tmp_path):
    for write in (lambda p: write_json(p, {}), lambda p: write_tensors(p, {}, {}), lambda p: write_output(p, [b"x"])):
        with pytest.raises(FileNotFoundError, match="its folder is gone, with all that was in it") as caught:
            write(tmp_path / "gone" / "f")
        assert "intact" not in str(caught.value)


# -- commands ----------------------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path, monkeypatch) -> str:
    from safetensors.torch import save_file

    monkeypatch.chdir(tmp_path)
    save_file({"layer.weight": torch.arange(12.0).reshape(3, 4)}, "w.safetensors")
    return "w.safetensors"


def test_a_table_on_standard_output_is_alone_there(weights, capfd):
    assert main(["analyze", weights, "--csv", "t.csv"]) == 0
    capfd.readouterr()
    assert main(["analyze", weights, "--csv", "-"]) == 0
    assert capfd.readouterr().out == Path("t.csv").read_text()
    assert main(["phase", "--out", "p.svg"]) == 0
    capfd.readouterr()
    assert main(["phase", "--out", "-"]) == 0
    assert capfd.readouterr().out == Path("p.svg").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["analyze", "w.safetensors", "--csv", "."], "cannot write --csv .: it is a folder"),
        (["analyze", "w.safetensors", "--html", "no/page.html"], "cannot write --html no/page.html: the folder"),
        (["analyze", "w.safetensors", "--csv", "-", "--html", "/dev/stdout"], "only one of --csv, --html"),
        (["analyze", "w.safetensors", "--csv", "-", "--json"], "only one of --csv, --json"),
        (["phase", "--out", "no/x.svg"], "cannot write --out no/x.svg: the folder"),
        (["phase", "--out", "d.svg"], "cannot write --out d.svg: it is a folder"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_work(weights, capsys, words, said):
    Path("d.svg").mkdir()
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_a_device_and_a_link_of_a_command(weights, capsys):
    Path("real.csv").write_text("old")
    Path("link.csv").symlink_to("real.csv")
    assert main(["analyze", weights, "--csv", "link.csv", "--html", "/dev/null"]) == 0
    assert Path("link.csv").is_symlink()
    assert Path("real.csv").read_text().startswith("tensor,")
    assert main(["phase", "--out", "/dev/null"]) == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    capsys.readouterr()
