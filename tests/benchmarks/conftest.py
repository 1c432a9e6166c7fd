"""A check of mistakes, as in tests/experiments."""

import pytest


@pytest.fixture
def error_of(capsys):
    """The line that a mistake gives a command, after checking that it is one and the code is 2."""

    def run(main, *arguments):
        capsys.readouterr()  # what earlier commands of the test said
        with pytest.raises(SystemExit) as exit_info:
            main(list(arguments))
        assert exit_info.value.code == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert err.endswith("\n")
        assert err.count("\n") == 1
        return err

    return run
