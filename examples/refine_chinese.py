"""A recipe for Chinese pages and forum posts: the stages of RefinedWeb with thresholds for Chinese, and two more.

Command: jaxlm refine examples/refine_chinese.py pages/*.warc.gz runs/chinese --thresholds zh.json
Thresholds: `jaxlm refine thresholds clean/*.txt.jsonl zh.json --language zh`; without them jaxlm's own are used.
"""

from __future__ import annotations

from jaxlm.refine.duplicate_urls import DuplicateUrls
from jaxlm.refine.fineweb import FineWeb
from jaxlm.refine.language_id import LanguageId
from jaxlm.refine.lines import Lines
from jaxlm.refine.near_duplicates import NearDuplicates
from jaxlm.refine.personal_data import PersonalData
from jaxlm.refine.quality import Quality
from jaxlm.refine.recipe import Recipe
from jaxlm.refine.repetition import Repetition
from jaxlm.refine.substrings import Substrings
from jaxlm.refine.urls import Urls


def get_config() -> Recipe:
    """Stages run in the order of the fields of `Recipe`."""
    return Recipe(
        urls=Urls(),
        language=LanguageId(keep=("zh",)),
        repetition=Repetition(),
        quality=Quality(),
        lines=Lines(),
        fineweb=FineWeb(),
        near_duplicates=NearDuplicates(buckets=14, hashes=8),
        # the first copy of a quotation stays
        substrings=Substrings(keep="first"),
        duplicate_urls=DuplicateUrls(),
        personal_data=PersonalData(),
    )
