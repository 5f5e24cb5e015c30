import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcord.normative.federation.signature import Key, WrongSignature, canonical, new_key, sign, verify

KEY = Key(bytes(range(32)))
DOCUMENT = {"a": [1.5, 2, 0.1 + 0.2], "b": {"c": "text", "d": None}}


def test_a_signed_document_is_read_back_exactly():
    assert verify(sign(DOCUMENT, KEY), KEY) == DOCUMENT


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, 10**6), change=st.integers(1, 255))
def test_any_changed_byte_is_refused(position, change):
    document = bytearray(sign(DOCUMENT, KEY))
    document[position % len(document)] ^= change
    with pytest.raises(WrongSignature):
        verify(bytes(document), KEY)


def test_another_form_of_the_same_content_is_refused():
    with pytest.raises(WrongSignature, match="not written as it was signed"):
        verify(sign(DOCUMENT, KEY).replace(b",", b", "), KEY)


def test_wrong_key_no_signature_and_no_json_are_refused_in_one_sentence():
    signed = sign(DOCUMENT, KEY)
    with pytest.raises(WrongSignature, match="signed with key"):
        verify(signed, new_key())
    other = new_key()
    with pytest.raises(WrongSignature, match="changed after"):
        verify(signed.replace(KEY.name.encode(), other.name.encode()), other)
    with pytest.raises(WrongSignature, match="carries no signature"):
        verify(canonical(DOCUMENT), KEY)
    with pytest.raises(WrongSignature, match="not complete JSON"):
        verify(signed[:-5], KEY)
    with pytest.raises(WrongSignature, match="changed after"):
        verify(b'{"Z":NaN,' + signed[1:], KEY)


def test_keys_differ_are_read_back_and_do_not_show():
    one, two = new_key(), new_key()
    assert one != two
    assert Key.from_text(one.to_text()) == one
    assert one.secret.hex() not in repr(one)
    assert one.secret.hex() not in sign(DOCUMENT, one).decode()
    for text in ("", "secret", one.to_text()[:-4], one.to_text().replace("key 1", "key 2")):
        with pytest.raises(WrongSignature, match="not one of qcord"):
            Key.from_text(text)
