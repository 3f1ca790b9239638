"""Groups of commands whose help shows every summary whole, and that know what was meant."""

import difflib

import click


class PlainGroup(click.Group):
    """A group whose help cuts no summary short, and that names the nearest known command."""

    def summaries(self, ctx: click.Context) -> list[tuple[str, str]]:
        """Return the name of every command that help shows, and what it does."""
        commands = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        return [
            (name, command.get_short_help_str(_NO_LIMIT))
            for name, command in commands
            if command is not None and not command.hidden
        ]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(self.summaries(ctx))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        is_wanted = not ctx.resilient_parsing  # where a shell completes, nobody is to be told
        if is_wanted and args and args[0] not in known and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], known, n=1)
            meant = f" Did you mean {near[0]}?" if near else f" There are: {', '.join(known)}."
            raise click.UsageError(f"No such command {args[0][:_SHOWN]!r}.{meant}", ctx)
        return super().resolve_command(ctx, args)


_NO_LIMIT = 10_000
_SHOWN = 40
