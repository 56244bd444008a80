"""`torchgguf chat`: a conversation in the terminal."""

import contextlib
import sys
from typing import TYPE_CHECKING

from torchgguf.cli.options import FileArgument, Options, with_options
from torchgguf.cli.terminal import note, one_line
from torchgguf.interrupts import first_interrupt_noted

if TYPE_CHECKING:
    from torchgguf.cli.session import Session

HELP = """\
/help   show this
/reset  forget the conversation
/exit   leave (also Ctrl-D, and Ctrl-C at the prompt)
Ctrl-C  stop the current answer"""


@with_options
def chat_command(file: FileArgument, *, options: Options) -> None:
    """Talk to a model. From a pipe, every line is one message."""
    from torchgguf.cli.loading import start_session

    session = start_session(file, options)
    if not session.has_chat_template:
        raise ValueError(f"{file}: this model has no chat template; 'torchgguf run' continues a text")
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (line editing and recall in input())
        note("/help lists the commands.")
    Conversation(session, options.system, options.wants_stats).hold()


class Conversation:
    """A conversation in the terminal.

    Args:
        session: the session that answers.
        system: instructions before the first message.
        stats: whether to show the speed after each answer.
    """

    def __init__(self, session: "Session", system: str | None, stats: bool) -> None:
        self.session, self.system, self.stats = session, system, stats
        self.reset()

    def reset(self) -> None:
        """Forget everything except the instructions."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        self.messages: list[dict[str, str]] = system

    def hold(self) -> None:
        """Read messages and answer them until the user leaves."""
        while (said := _listen()) is not None:
            match said.split():
                case []:
                    continue
                case ["/exit"]:
                    return
                case ["/help"]:
                    note(HELP)
                case ["/reset"]:
                    self.reset()
                    note("Forgotten.")
                case [command, *_] if command.startswith("/"):
                    note(f"There is no {one_line(command)}; /help lists the commands.")
                case _:
                    self.answer(said)

    def answer(self, said: str) -> None:
        """Print the answer while it is generated; the first Ctrl-C stops it, a second one the program."""
        self.messages.append({"role": "user", "content": said})
        try:
            answer = self._speak()
        except ValueError as error:  # it is too long, or the template rejects it
            if not sys.stdin.isatty():
                raise
            self.messages.pop()
            note(f"error: {one_line(str(error))}; /reset forgets the conversation")
            return
        self.messages.append({"role": "assistant", "content": answer})
        if self.stats:
            note(str(self.session.stats))

    def _speak(self) -> str:
        pieces = []
        with first_interrupt_noted() as interrupted:
            for piece in self.session.reply(self.messages):
                pieces.append(piece)
                sys.stdout.write(piece)
                sys.stdout.flush()
                if interrupted.is_set():
                    break
        print(flush=True)
        return "".join(pieces)


def _listen() -> str | None:
    """Return the next line, or None at the end."""
    asks = sys.stdin.isatty() and sys.stdout.isatty()
    try:
        return input("> " if asks else "")
    except EOFError:
        if asks:
            print()
        return None
