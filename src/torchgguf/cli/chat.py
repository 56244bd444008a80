"""`torchgguf chat`: a conversation in the terminal."""

import contextlib
import sys
from typing import TYPE_CHECKING

from torchgguf.cli.options import FileArgument, Options, with_options
from torchgguf.cli.terminal import first_interrupt_noted, note, one_line

if TYPE_CHECKING:
    from torchgguf.cli.session import Session

HELP = """\
/help   show this
/reset  forget the conversation
/exit   leave (so do Ctrl-D, and Ctrl-C while nothing is being said)
Ctrl-C  end the answer that is being given"""


@with_options
def chat_command(file: FileArgument, *, options: Options) -> None:
    """Talk to a model. Read from a pipe, every line is something said."""
    from torchgguf.cli.loading import start_session

    session = start_session(file, options)
    if not session.has_chat_template:
        raise ValueError(f"{file}: this model has no chat template; 'torchgguf run' continues a text")
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (line editing and recall in input())
        note("/help tells what there is besides talking.")
    Conversation(session, options.system, options.wants_stats).hold()


class Conversation:
    """Reads what is said, answers, remembers."""

    def __init__(self, session: "Session", system: str | None, stats: bool) -> None:
        self.session, self.system, self.stats = session, system, stats
        self.reset()

    def reset(self) -> None:
        """Forget everything but the instructions."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        self.messages: list[dict[str, str]] = system

    def hold(self) -> None:
        """Go on until somebody leaves."""
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
                    note(f"There is no {one_line(command)}; /help tells what there is.")
                case _:
                    self.answer(said)

    def answer(self, said: str) -> None:
        """Say the answer while it comes into being; a first Ctrl-C ends it, a second ends the program."""
        self.messages.append({"role": "user", "content": said})
        try:
            answer = self._speak()
        except ValueError as error:  # it is too long, or not what the template allows
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
    """The next line said, None at the end."""
    asks = sys.stdin.isatty() and sys.stdout.isatty()
    try:
        return input("> " if asks else "")
    except EOFError:
        if asks:
            print()
        return None
