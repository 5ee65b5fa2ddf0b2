"""A rival as a process of its own: JSON lines in, JSON lines out; run with the Python of the rivals' environment.

    python worker.py kolmo|kolmo_one_size|aurelio|aurelio_free|aurelio_free_few|minilm_knn|deberta_small|deberta_large
    python worker.py aurelio|minilm_knn FOLDER        # keeps the vectors of what it learns, for the next one to read

Every rival is used as its documentation says, with its own defaults, on one core; only `kolmo_one_size` has a setting
that is chosen. Texts are cut where an encoder cuts them: MiniLM at 256 tokens (its own setting), DeBERTa at 512.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from rivals.aurelio import Aurelio
from rivals.base import Kept, Rival
from rivals.dictionaries import Kolmo, KolmoOneSize
from rivals.encoders import LARGE, SMALL, EncoderKNN

RIVALS: dict[str, Callable[[], Rival]] = {
    "kolmo": Kolmo,
    "kolmo_one_size": KolmoOneSize,
    "aurelio": Aurelio,
    "aurelio_free": lambda: Aurelio(free=True),
    "aurelio_free_few": lambda: Aurelio(free=True),
    "minilm_knn": EncoderKNN,
    "deberta_small": lambda: EncoderKNN(SMALL),
    "deberta_large": lambda: EncoderKNN(LARGE),
}


def main() -> None:
    """Answer every line; whatever a rival prints goes to standard error."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    rival = RIVALS[sys.argv[1]]()
    if sys.argv[2:]:
        rival.kept = Kept(Path(sys.argv[2]))
    for line in sys.stdin:
        what, value = json.loads(line)
        print(json.dumps(rival.answer(what, value)), file=out, flush=True)


if __name__ == "__main__":
    main()
