"""A program that runs llama.cpp's converter as often as it is asked: most of a run of its own is importing.

Usage: python -P convert.py FOLDER_OF_THE_CONVERTER

Each line on standard input is a JSON list: the path of the script to run, which is the converter or one that
uses its parts; its arguments; and the rule by which a byte-level vocabulary splits texts. The converter
finds the rule by what published vocabularies make of a text. Another vocabulary has to state its rule; an
empty name leaves the search to the converter. Each line on standard output is the JSON of an error, empty if
there was none. The converter's log goes to standard error.

Each run is a fork of this program: the converter stores some options in its classes, where the next run would
find them.
"""

import contextlib
import json
import os
import runpy
import sys
import traceback


def run(script: str, arguments: list[str], split: str) -> str:
    """Run the converter, and return the error that ended it."""
    from conversion.base import TextModel  # llama.cpp's, beside its script
    from conversion.hunyuan import HunYuanMoEModel

    # The vocabulary of the released model is tiktoken's, read by code of its own.
    HunYuanMoEModel.set_vocab = TextModel._set_vocab_gpt2

    if split:
        TextModel.get_vocab_base_pre = lambda self, tokenizer: split
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        return f"it ended with {end.code}" if end.code else ""
    except Exception:
        return traceback.format_exc()
    return ""


def run_forked(script: str, arguments: list[str], split: str) -> str:
    """Run the converter in a fork, and return the error that ended it."""
    read, write = os.pipe()
    if not (child := os.fork()):
        with os.fdopen(write, "w") as answer:
            answer.write(run(script, arguments, split))
        sys.stderr.flush()
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        error = answer.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return error or (f"its process ended with {status}" if status else "")


def main(folder: str) -> None:
    """Answer all lines."""
    sys.path.insert(0, folder)
    import conversion.base  # noqa: F401  # once, not in every fork

    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        for line in sys.stdin:
            print(json.dumps(run_forked(*json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
