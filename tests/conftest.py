"""Settings and fixtures that all tests share."""

import pytest
from hypothesis import settings

# Compiling is slow and its time varies, so a deadline would say nothing; the examples are the same
# in every run, so that a failure can be repeated.
settings.register_profile("medjax", deadline=None, derandomize=True, database=None)
settings.load_profile("medjax")


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
