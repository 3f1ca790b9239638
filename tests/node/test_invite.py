"""Invite codes: what goes in comes out, and whatever else is typed gets a clear answer."""

import pytest
from hypothesis import assume, given, strategies as st

from p2pnode.errors import UserError
from p2pnode.node.invite import MAX_ADDRESSES, PREFIX, Invite, decode_invite, encode_invite

names = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,60}[a-z0-9])?", fullmatch=True)
addresses = st.tuples(st.ip_addresses().map(str) | names, st.integers(1, 65535))
invites = st.builds(
    Invite,
    st.binary(min_size=32, max_size=32),
    st.lists(addresses, max_size=MAX_ADDRESSES).map(tuple),
)
EXAMPLE = Invite(bytes(range(32)), (("192.168.1.20", 4747), ("fd00::7", 4747), ("a.example", 1)))


def test_a_code_stays_readable_by_later_versions() -> None:
    code = (
        "p2p1-aeaacaqdaqcqmbyibefawdanbyhraeiscmkbkfqxdamrugy4dupb6ayeycuacfasrmdp2aaaaaa"
        "aaaaaaaaaaaaaaaaaoeuldfqs4zlymfwxa3dfaaa6jww7ya"
    )
    assert encode_invite(EXAMPLE) == code
    assert decode_invite(code) == EXAMPLE


@given(invites)
def test_an_invite_survives_its_code(invite: Invite) -> None:
    code = encode_invite(invite)
    assert code.startswith(PREFIX)
    assert decode_invite(code) == invite


@given(invites, st.integers(1, 9), st.sampled_from(["-", " ", "\n", " - "]))
def test_grouping_and_case_do_not_matter(invite: Invite, size: int, between: str) -> None:
    code = encode_invite(invite)
    groups = between.join(code[start : start + size] for start in range(0, len(code), size))
    assert decode_invite(f"  {groups.upper()}\n") == invite


between = st.text(
    "-\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63\uff0d\u00ad"
    " \u00a0\u2007\u202f\u3000\t\n\r\u2028"
    "\u200b\u200c\u200d\u2060\ufeff\u200e\u202a*_`>|'\"\u2018\u2019\u201c\u201d\u00ab\u00bb.,:;=",
    max_size=4,
)


@given(invites, between, st.integers(4, 60))
def test_whatever_gets_into_a_code_on_its_way_is_passed_over(
    invite: Invite, mark: str, size: int
) -> None:
    code = encode_invite(invite)
    groups = mark.join(code[start : start + size] for start in range(0, len(code), size))
    assert decode_invite(mark + groups + mark) == invite


@given(
    invites,
    st.sampled_from(
        [
            "p2pnode join {}",
            "$ p2pnode join {}   # the new code",
            "on the other machine:  p2pnode join {}\nThanks, Bob",
            "**{}**",
            "> {}",
            "> > {}",
            "```\n{}\n```",
            "```console\n$ p2pnode join {}\n```",
            "[{}]({})",
            "[the code](https://example.org/{})",
            "`{}`.",
            "\u201c{}\u201d,",
            "'{}'",
            '{{"code": "{}", "addresses": []}}',
            "<code>{}</code>",
            "({}).",
            "{}!\n-- \nSent from p2pnode",
        ],
    ),
)
def test_what_stands_around_a_code_is_passed_over(invite: Invite, around: str) -> None:
    code = encode_invite(invite)
    assert decode_invite(around.replace("{}", code).replace("{{", "{").replace("}}", "}")) == invite


@given(invites)
def test_full_width_letters_are_read(invite: Invite) -> None:
    code = encode_invite(invite)
    wide = "".join(chr(ord(letter) + 0xFEE0) for letter in code)
    assert decode_invite(wide) == invite


@given(invites)
def test_a_code_broken_by_quoted_mail_is_read(invite: Invite) -> None:
    code = encode_invite(invite)
    lines = [code[start : start + 40] for start in range(0, len(code), 40)]
    assert decode_invite("\r\n".join(f"> {line}" for line in lines)) == invite


@given(invites, st.data())
def test_a_wrong_letter_is_noticed_in_any_decoration(invite: Invite, data: st.DataObject) -> None:
    code = encode_invite(invite)
    place = data.draw(st.integers(len(PREFIX), len(code) - 1))
    letter = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz234567\u0430\u00e9"))
    assume(letter != code[place])
    wrong = code[:place] + letter + code[place + 1 :]
    with pytest.raises(UserError):
        decode_invite(f"> p2pnode join **{wrong}** please")


@given(invites, st.sampled_from("ab27"))
def test_a_letter_too_many_is_noticed(invite: Invite, letter: str) -> None:
    with pytest.raises(UserError):
        decode_invite(encode_invite(invite) + letter)


def test_what_is_pasted_is_bounded() -> None:
    with pytest.raises(UserError, match="too long"):
        decode_invite("p2p1" * 10_000)


@given(invites)
def test_digits_that_look_like_letters_are_forgiven(invite: Invite) -> None:
    body = encode_invite(invite).removeprefix(PREFIX)
    assert decode_invite(PREFIX + body.translate(str.maketrans("olb", "018"))) == invite


@given(invites, st.data())
def test_one_wrong_letter_is_always_noticed(invite: Invite, data: st.DataObject) -> None:
    code = encode_invite(invite)
    place = data.draw(st.integers(len(PREFIX), len(code) - 1))
    letter = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
    assume(letter != code[place])
    with pytest.raises(UserError) as caught:
        decode_invite(code[:place] + letter + code[place + 1 :])
    assert caught.value.hint


@given(invites, st.data())
def test_a_code_cut_short_is_always_noticed(invite: Invite, data: st.DataObject) -> None:
    code = encode_invite(invite)
    with pytest.raises(UserError):
        decode_invite(code[: data.draw(st.integers(0, len(code) - 1))])


@given(st.text() | st.text("abcdefghijklmnopqrstuvwxyz234567").map(PREFIX.__add__))
def test_any_text_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(UserError) as caught:
        decode_invite(text)
    assert caught.value.hint


def test_a_newer_version_is_told_apart() -> None:
    with pytest.raises(UserError, match="newer version"):
        decode_invite("p2p2-abcdef")


@pytest.mark.parametrize(
    "address",
    [("", 1), ("a b", 1), ("fe80::1%3", 1), ("x" * 129, 1), ("a", 0), ("a", 65536), ("ä", 1)],
)
def test_an_address_nobody_can_use_is_refused(address: tuple[str, int]) -> None:
    with pytest.raises(UserError):
        Invite(bytes(32), (address,))


def test_the_secret_does_not_show() -> None:
    assert "secret" not in repr(EXAMPLE)
