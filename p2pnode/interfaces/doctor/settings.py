"""The settings file and the variables: whether a command could go by them."""

from collections.abc import Iterator

import click

from p2pnode.errors import UserError
from p2pnode.interfaces.config.config_file import Choice, ConfigFile
from p2pnode.interfaces.config.report import problems
from p2pnode.interfaces.config.settings import all_settings
from p2pnode.interfaces.doctor.findings import Finding

TOPIC = "settings"


def check_settings(choice: Choice, root: click.Group) -> Iterator[Finding]:
    """Say which file settings come from, and each thing that is wrong with them.

    Args:
        choice: Which file is read.
        root: The command of which all others are parts.
    """
    try:
        file = ConfigFile.read(choice)
    except UserError as error:
        yield Finding(TOPIC, "fail", str(error), error.hint)
        return
    if file.is_there:
        yield Finding(TOPIC, "ok", str(file.path))
    else:
        yield Finding(TOPIC, "ok", f"{file.path} is not there: the defaults hold")
    for problem in problems(file, root, all_settings(root)):
        yield Finding(TOPIC, "fail", str(problem), problem.hint)
