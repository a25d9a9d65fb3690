"""Random names for runs that were given none, in MLflow's form: adjective-noun-number."""

from __future__ import annotations

import random

__all__ = ["random_run_name"]


def _words(text: str) -> list[str]:
    return text.split()


_ADJECTIVES = _words(
    "able amber ample azure bold brave bright brisk calm candid clear clever cosy crisp "
    "daring deft eager early fair fleet fond frank fresh gentle glad golden grand happy hardy "
    "honest humble jolly keen kind lively loyal lucid lunar mellow merry mild mossy neat "
    "nimble noble open patient plain polite prime proud quick quiet rapid ready robust rustic "
    "sharp silent silver simple sleek smooth snowy solar steady still stout sunny swift tidy "
    "tranquil true vivid warm wide witty young "
)
_NOUNS = _words(
    "acorn alder anchor aspen badger beacon birch bison breeze brook canyon cedar clover "
    "comet condor coral crane creek dune eagle ember falcon fern finch fjord forest fox "
    "garnet glacier grove gull harbor hare hawk hazel heron hill ibis iris island jay juniper "
    "kestrel lagoon lake larch lark lynx maple marsh meadow moth oak otter owl pebble pine "
    "plover quail quartz raven reef ridge river robin sage seal spruce stone stork swan "
    "thistle thrush tiger trout valley walrus willow wolf wren "
)


def random_run_name() -> str:
    """A name such as `brisk-otter-417`. Names need not be unique."""
    number = random.randint(0, 999)  # noqa: S311  not a secret
    return f"{random.choice(_ADJECTIVES)}-{random.choice(_NOUNS)}-{number}"  # noqa: S311  not a secret
