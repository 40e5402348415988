# SPDX-License-Identifier: Apache-2.0
"""The program around the commands: options, configuration, exit codes."""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import logging
from typing import Any

from cliff import app, command, commandmanager
from oslo_config import cfg

from imagecache import opts
from imagecache.cmd import errors
from imagecache.cmd.console import Console, ConsoleHandler
from imagecache.cmd.errors import UsageError
from imagecache.image_cache import ImageCache

NAME = "imagecache"


class Commands(commandmanager.CommandManager):

    def find_command(self, argv: list[str]
                     ) -> tuple[type[command.Command], str, list[str]]:
        try:
            return super().find_command(argv)
        except ValueError:
            raise UsageError(f"there is no command {' '.join(argv)!r};"
                             " --help lists them") from None


class App(app.App):
    """One run of the command."""

    NAME = NAME
    LOG = logging.getLogger(NAME)

    def __init__(self) -> None:
        super().__init__(
            description="Disks for virtual machines, from images cached on"
            " this host.",
            version=importlib.metadata.version(NAME),
            command_manager=Commands("imagecache.cli"),
            # "disk create --help" prints the help of "disk create".
            deferred_help=True)
        self._failure = 0

    def build_option_parser(
            self, description: str | None, version: str | None,
            argparse_kwargs: dict[str, Any] | None = None,
            ) -> argparse.ArgumentParser:
        parser = super().build_option_parser(description, version, {
            "prog": NAME, "epilog": errors.MANUAL,
            "formatter_class": argparse.RawDescriptionHelpFormatter,
            # --instance of a command must not match --instances-path.
            "allow_abbrev": False})
        parser.add_argument(
            "--config-file", action="append", metavar="FILE",
            help="Read this configuration file; can be repeated. Default:"
            " imagecache.conf in ~/.imagecache, ~, /etc/imagecache or /etc.")
        parser.add_argument(
            "--instances-path", metavar="DIR",
            help="The directory of instances and bases; overrides the"
            " configuration.")
        return parser

    def configure_logging(self) -> None:
        """Send the library's warnings, and with -vv all its log, to stderr.

        The log files that the configuration names belong to the agent; a
        command does not write to them.
        """
        level = self.options.verbose_level
        self.console = Console(self.stderr, steps=level > 1, bars=level > 0)
        handlers: list[logging.Handler] = [ConsoleHandler(
            self.console, logging.DEBUG if level > 2 else logging.WARNING)]
        if self.options.log_file:
            try:
                file = logging.FileHandler(self.options.log_file)
            except OSError as e:
                self.parser.error(f"argument --log-file: {e}")
            file.setFormatter(logging.Formatter(self.LOG_FILE_MESSAGE_FORMAT))
            handlers.append(file)
        logging.basicConfig(level=logging.DEBUG, handlers=handlers,
                            force=True)
        # stevedore warns of an unknown backend; the library raises an error.
        logging.getLogger("stevedore").setLevel(logging.ERROR)

    @functools.cached_property
    def cache(self) -> ImageCache:
        """The cache of the configuration that the command line names.

        :raises cfg.Error: it cannot be read
        """
        conf = cfg.ConfigOpts()
        opts.register_opts(conf)
        conf([], project=NAME, default_config_files=self.options.config_file)
        if self.options.instances_path is not None:
            conf.set_override("instances_path", self.options.instances_path)
        return ImageCache(conf, observe=self.console)

    def run(self, argv: list[str]) -> int:
        result = super().run(argv)
        return self._failure or result

    def interact(self) -> None:
        """Refuse a call without a command; cliff would start a shell."""
        self.parser.error("a command is missing; --help lists them")

    def report(self, error: Exception) -> None:
        """Print an error, and keep its exit code for the end of the run."""
        self.LOG.error(error, exc_info=self.options.debug)
        self._failure = self._failure or errors.exit_code(error)

    def clean_up(self, cmd: command.Command, result: int,
                 err: BaseException | None) -> None:
        self.console.close()
        # Other classes stand for signals; cliff has exit codes for them.
        if isinstance(err, Exception) and not isinstance(err, BrokenPipeError):
            self._failure = self._failure or errors.exit_code(err)
