"""What the tests of commands share: one trained run, and commands called in this process."""

import pytest
from command_line import TINY, run

from minivit import command


@pytest.fixture(scope="session")
def workplace(tmp_path_factory):
    """A folder in which one tiny run of two epochs was trained; its folder is runs/sl_vit-shapes10."""
    cwd = tmp_path_factory.mktemp("workplace")
    code, out, err = run("minivit.train", "--epochs", "2", *TINY, cwd=cwd)
    assert code == 0, err
    (cwd / "stdout").write_text(out)
    (cwd / "stderr").write_text(err)
    return cwd


@pytest.fixture
def call(monkeypatch, capsys):
    """``call(main, *arguments)`` -> (exit code, stdout, stderr), like a command but in this process."""

    def run(module, *arguments):
        name = module.__name__.rpartition(".")[2]
        monkeypatch.setattr(command, "set_threads", lambda *args, **kwargs: None)  # this process keeps its own
        with pytest.raises(SystemExit) as stop:
            command.run(None if name == "__main__" else name, module.main, [str(a) for a in arguments])
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return run
