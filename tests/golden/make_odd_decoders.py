"""Creates tests/golden/odd_decoders.json.gz: the rows of tests/hf/test_live_decoders.py that transformers computes, in
the form of make_odd_settings.py, which see, so that they are tested without transformers.

    python tests/golden/make_odd_decoders.py [--new | PART OF A NAME ...]
"""

import pathlib
import sys

import make_odd_settings as odd

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "hf"))
import test_live_decoders as live

odd.ROWS.clear()
odd.FILE = pathlib.Path(__file__).with_name("odd_decoders.json.gz")
for name, changes, refused in live.TABLE:
    if refused is None:
        odd.row(name, live.settings_of(name, {}), **changes)

if __name__ == "__main__":
    odd.main(sys.argv[1:])
