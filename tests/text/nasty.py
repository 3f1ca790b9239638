# ruff: noqa: E501
"""Texts that tokenizers are known to disagree about."""

from typing import Final

from hypothesis import strategies as st

_SPACES: Final = (
    " \t\n\r\v\f\x1c\x1d\x1e\x1f\x85\u00a0\u1680\u2000\u2003\u2009\u200a\u200b\u2028\u2029"
    "\u202f\u205f\u2060\u3000\ufeff\u180e\u2581"
)
_RUNS: Final = tuple(
    f"{before}{space * many}{after}"
    for space in (" ", "\t", "\n", "\r\n", " \n", "\n ", "\u00a0", "\u3000", "\u2581")
    for many in (1, 2, 3, 17)
    for before, after in (("", ""), ("a", "b"), ("", "."), ("1", ""))
)
_WORDS: Final = (
    "",
    "Hello, world!",
    "I'm, you're, they'll, we've, he'd, it's, can't",
    "I'M, YOU'RE, THEY'LL, WE'VE, HE'D, IT'S, CAN'T",
    "it\u2019s \u2018quoted\u2019 'tis '\u017f x'\u017f 'S'S 'sS 'LLama 'rEally",
    "''s '' ' 's't're've'm'll'd",
    "0 1 12 123 1234 12345 1234567890 3.14159 1,000,000 1e-9 0x1F",
    "\u0661\u0662\u0663 \u0967\u0968 \uff11\uff12 \u00b2\u00b3 \u00bd \u2167 \u2460 \u3007 \U0001d7d8",
    "camelCaseWordsAndHTTPServers iPhone McDonald XMLHttpRequest aB Ab AB ab ABc aBC",
    "\u01c5 \u02b0 \u00aa\u00ba \u01c4\u01c6 \u00c9COLE \u00e9cole \u00dfTRASSE \u0130stanbul \u0131",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002\u4eca\u5929\u5929\u6c14\u5f88\u597d\uff01",
    "\u3053\u3093\u306b\u3061\u306f\u3001\u30ab\u30bf\u30ab\u30ca\u30fc\u3067\u3059 \u9f98\u9fa6",
    "\uc548\ub155\ud558\uc138\uc694 \u1112\u1161\u11ab\u1100\u1173\u11af",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645 \u0640\u0640\u064e\u0651",
    "\u05e9\u05dc\u05d5\u05dd \u05e9\u05b8\u05dc\u05d5\u05b9\u05dd \u202eabc\u202c \u200fx\u200e",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u10d2\u10d0\u10db \u1780\u17d2\u179a",
    "e\u0301 e\u0301\u0301 \u00e9 n\u0303 A\u030a \u212b \u1e9b\u0323 \u0301a \u0300\u0301 a\u0327\u0301 x\u0338",
    "\U0001f600 \U0001f44d\U0001f3fd \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u2764\ufe0f \u263a\ufe0e 1\ufe0f\u20e3",
    "\U0001f600\U0001f600\U0001f600a \U00010400\U00010428 \U00020000 \U000e0041 \uf8ff \U0010ffff \ufffe",
    "a\x00b\x00\x00 \x01\x02\x1b[0m \x7f\x80\x9f",
    "\ufffd \ufffd\ufffd a\ufffdb",
    "if (x != y) { return a->b[i++] /* ok */; }  // done\n\tfor i in range(10):\n\t\tprint(f'{i}')\n",
    "def f(x):\n    return {\n        'a': 1,\n    }\n\n\n\nclass A: pass\r\n\r\n  \r\n x",
    "http://a.b/c?d=e&f=%20#g user@example.org ~/x\\y $HOME ${A} `b` ^_^ <|x|> [INST] </s><s>",
    "<start_of_turn>user\nhi<end_of_turn>\n <|im_start|> <|eot_id|> <0x0A> <0x41> <unk> <pad> <bos>",
    "<table><tr><td>1</td></tr></table> <h1>x</h1> <b>b</b></i>",
    "!!!???...,,,;;;:::---___***///\\\\\\|||~~~```^^^+++===<<<>>>((()))[[[]]]{{{}}}@@@###$$$%%%&&&",
    " leading", "  leading", "trailing ", "trailing  ", "\nleading", "trailing\n", "a  b   c    d",
    ".\n\n", "!\r\n\r\nx", "//\n/\n", "a/\n/b", "\u3002\n\u3002", "?\u2028\u2029x", "x \u200b y",
    "_a __b__ a_b_c _1_2 1_000 \u203f\u2040 a\u00b7b a\u00adb", "1st 2nd 3rd 4th a1b2c3 A1 1A 1\u00e9",
    "$100 \u20ac5 \u00a33.50 \u2211\u222b\u221e\u2260\u2264 \u2192\u21d2 \u2591\u2588 \u2500\u2502 \u00a9\u00ae\u2122 \u00b0C",
    "\u1ec7\u1ebf\u1ed9 Vi\u1ec7t \u0111\u1ea5t n\u01b0\u1edbc", "\u00c5ngstr\u00f6m na\u00efve fa\u00e7ade co\u00f6perate",
    "aaaaaaaaaaaaaaaa bbbbbbbbb abababababab AAAAAAAAAA zzzzzzz hahahahaha",
    "the the the The THE tHe  the   the", "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "\u2581a\u2581\u2581b \u2581 \u2581\u2581", "\u2028", "\ufeffBOM", "\u0345\u0345 \u1fb3",
)  # fmt: skip

_LONG: Final = (
    *(letter * 3_000 for letter in ("a", "A", " ", "\n", "\t", "\u00e9", "\u6f22", "7", "-", "'")),
    *(pair * 1_500 for pair in ("ab", "aA", "Aa", " a", "a ", "\n ", " \n", "1a", "'s", "\r\n")),
    "\U0001f468\u200d" * 500, "e\u0301" * 800, "x" + " " * 2_000 + "y", "the quick brown fox " * 150,
)  # fmt: skip

NASTY: Final = (
    *_WORDS,
    *_RUNS,
    *(f"a{space}b{space}{space}c {space}1{space} .{space}" for space in _SPACES),
    *_LONG,
)
"""Some 240 texts."""

SHORT: Final = tuple(text for text in NASTY if len(text) < 200)

texts: Final = st.lists(
    st.one_of(
        st.sampled_from([text for text in _WORDS if len(text) < 80]),
        st.sampled_from([*_SPACES, "  ", "\n\n", "'s", "'LL", " a", "A", "Ab", "1", "12", "."]),
        st.text(max_size=6),
    ),
    max_size=12,
).map("".join)
"""Any text, and often one of these."""
