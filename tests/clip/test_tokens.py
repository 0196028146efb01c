"""Small tokenizers: CLIP's splits of known words, and bytes for everything else."""

from __future__ import annotations

import open_clip
from hypothesis import given
from hypothesis import strategies as st
from world.words import vocabulary

from mote_fast.clip.tokens import BASE_TOKENS, merges_for, small_tokenizer

MERGES = merges_for(vocabulary())
SMALL, WHOLE = small_tokenizer(MERGES, 77), open_clip.SimpleTokenizer()


def test_known_words_are_split_as_clip_splits_them() -> None:
    """A word of the vocabulary has the same tokens, by their text, in both."""
    for word in vocabulary():
        small = [SMALL.decoder[token] for token in SMALL.encode(word)]
        assert small == [WHOLE.decoder[token] for token in WHOLE.encode(word)]


def test_vocabulary_size() -> None:
    """The text tower's table has a row for every token, and the end-of-text token is the last one."""
    assert SMALL.vocab_size == BASE_TOKENS + len(MERGES)
    assert SMALL.eot_token_id == SMALL.vocab_size - 1


@given(st.text(max_size=40))
def test_any_text_can_be_encoded(text: str) -> None:
    """No text fails, and every token has a row in the table."""
    assert all(0 <= token < SMALL.vocab_size for token in SMALL.encode(text))
