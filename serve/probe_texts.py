"""Texts for comparing two tokenisers: every script, every kind of blank and mark."""

from __future__ import annotations

from collections.abc import Sequence

WRITTEN = (
    "",
    " ",
    "fine",
    "Hello World",
    "HELLO WORLD, hello world, hELLO wORLD",
    "I can't say it isn't what they'd've wanted; we'll see, won't we?",
    "The battery lasts two days, the screen doesn't: 3.5 stars of 5 (70 %).",
    " leading blank",
    "trailing blank ",
    "two  blanks,   three,    four",
    "tab\tnewline\nboth\t\n\r\nend\n",
    "no-break\u00a0space, thin\u2009space, ideographic\u3000space, em\u2003space",
    "zero\u200bwidth, joiner\u200d, non-joiner\u200c, bom\ufeff, soft\u00adhyphen",
    "word\u2060joiner",
    "\u200b",
    "\x00",
    "control \x01\x02\x1b[0m \x7f \x85 characters",
    "bidi \u202eoverride\u202c and \u2066isolate\u2069",
    "\ufffd replacement, private \ue000, tag \U000e0041, last \U0010fffd",
    "é e\u0301 É E\u0301 ñ n\u0303 ü u\u0308 ç c\u0327 å a\u030a ő ø œ æ ß ẞ ł đ ı İ",
    "naïve café, Ångström, Škoda, Dvořák, Łódź, São Paulo, Reykjavík, façade, coöperate",
    "ﬁne ﬂow, ①②③, ½ ¼, ㎏ ㎞, Ⅷ, ℌ, ㈱, x² H₂O, 10⁻³, ＦＵＬＬ width, ｶﾞｷﾞ",
    "Zalgo t\u0335\u0321\u0353e\u0338\u0327x\u0334\u0322t\u0337\u0328",
    "“quotes” ‘single’ «guillemets» „low“ –dash— …ellipsis •bullet ‰ € £ ¥ ₹ ₽ ™ © ® § ¶",
    "a+b=c; x<y>z & {k: [v]} | ~^`\\ #tag @user $5 100% http://a.example/p?q=1&r=2#f me@a.example",
    "snake_case CamelCase kebab-case SCREAMING_CASE file.name.txt v1.2.3-rc4 0xFF 1e-9",
    "1,234,567.89",
    "!!! ??? ... ,,, ;;; --- ___ === *** /// (((  )))",
    "😀 😃 👍🏽 👩\u200d💻 👨\u200d👩\u200d👧\u200d👦 🇫🇷 🏴\u200d☠️ ❤️ ❤ ☺️ 1️⃣ 🫠",
    "good👍bad👎 text😀glued",
    "[CLS] [SEP] [MASK] [PAD] [UNK] <s> </s> <mask> <pad> <unk> <|endoftext|> <0x0A> ▁ ## Ġ Ċ",
    "[cls] x[SEP]y <S> a<mask>b [MASK]. [MASK] , <mask>\n<mask>",
    "##ing ##s ▁word ▁▁two Ġword _under",
    "word\u2581word \u2581 \u2582",
    "Der Fuß der Straße ist groß; Größe, Maß, MASSE, Übermut und Äpfel.",
    "Où êtes-vous allés ? L’été dernier, à Noël : « c’était déjà fini ».",
    "¿Dónde está el niño? ¡Allí mañana!",
    "Não há pão; então coração, ações e mães.",
    "Perché così? È già finita: più o meno.",
    "Zażółć gęślą jaźń. Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "Árvíztűrő tükörfúrógép. Țară și știință în București.",
    "İstanbul'da ılık ışık; ĞÜŞİÖÇ ğüşıöç.",
    "Tiếng Việt: Đường phố Hà Nội rất đẹp, phải không?",
    "Слишком дорого, но работает. Ёлка, йод, Щука. Їжак і ґанок.",
    "Η γρήγορη αλεπού· ΆΈΉΊΌΎΏ άέήίόύώ ΐΰ ς σ Σ ΣΟΦΟΣ",
    "שלום עולם, מה שלומך? שָׁלוֹם",
    "مرحبا بالعالم، كيف حالك؟ السَّلامُ عَلَيْكُم ۱۲۳ ١٢٣ لا ﷲ",
    "یہ اردو ہے۔ این فارسی است؛ می‌خواهم",
    "नमस्ते दुनिया। क्षत्रिय ज्ञान श्री हिन्दी ड़ ढ़",
    "আমি বাংলায় কথা বলি। தமிழ் மொழி. తెలుగు భాష. ಕನ್ನಡ. മലയാളം.",
    "ภาษาไทยไม่มีช่องว่างระหว่างคำ น้ำ ก็ เปิ้ล",
    "ພາສາລາວ. ភាសាខ្មែរ។ မြန်မာဘာသာ။ བོད་སྐད།",
    "我们今天去北京。價格太貴了！漢字かな交じり文、カタカナ。",
    "電池は良いが、画面は悪い。ﾊﾝｶｸ ガ ガ",
    "배터리는 좋고 화면은 나쁘다. 한글 한글 ㅋㅋㅋ ㅠㅠ",
    "混合mixed文字text与English单词",
    "ქართული ენა. Հայերեն լեզու. አማርኛ ቋንቋ።",
    "ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ ꮳꮃꭹ. ᠮᠣᠩᠭᠣᠯ. ⵜⵉⴼⵉⵏⴰⵖ. ދިވެހި.",
    "𝓗𝓮𝓵𝓵𝓸 𝕎𝕠𝕣𝕝𝕕 𝐛𝐨𝐥𝐝 ｆｕｌｌ 𐍈 𒀀 𓀀 𠀀𠮷",
)
# First letters of Unicode blocks; a few words are built from each.
BLOCKS = (
    *(0x21, 0x41, 0x61, 0xA1, 0xC0, 0x100, 0x180, 0x1E00, 0x250, 0x2B0, 0x300, 0x370, 0x1F00),
    *(0x400, 0x460, 0x500, 0x531, 0x5D0, 0x620, 0x660, 0x710, 0x780, 0x7CA, 0x800, 0x904),
    *(0x985, 0xA05, 0xA85, 0xB05, 0xB85, 0xC05, 0xC85, 0xD05, 0xD85, 0xE01, 0xE81, 0xF40),
    *(0x1000, 0x10A0, 0x10D0, 0x1100, 0x1200, 0x13A0, 0x1400, 0x16A0, 0x1780, 0x1820, 0x1900),
    *(0x1C90, 0x1D00, 0x2010, 0x2030, 0x2070, 0x20A0, 0x2100, 0x2150, 0x2190, 0x2200, 0x2300),
    *(0x2460, 0x2500, 0x2580, 0x25A0, 0x2600, 0x2700, 0x2800, 0x2C00, 0x2D30, 0x2E80, 0x3001),
    *(0x3041, 0x30A1, 0x3105, 0x3131, 0x3200, 0x3300, 0x3400, 0x4E00, 0x6F22, 0x9F00, 0xA000),
    *(0xA4D0, 0xA640, 0xA720, 0xA840, 0xA960, 0xAB30, 0xAC00, 0xB000, 0xF900, 0xFB00, 0xFB50),
    *(0xFE30, 0xFE70, 0xFF01, 0xFF61, 0x10000, 0x10300, 0x10400, 0x12000, 0x13000, 0x1D400),
    *(0x1F000, 0x1F300, 0x1F600, 0x1F680, 0x1F900, 0x20000, 0x2A700),
)
LETTERS = 12
# Number of a tokeniser's own tokens, taken evenly from all of them.
OWN_TOKENS = 160


def probe_texts(
    tokens: Sequence[str], *, special: Sequence[str], max_length: int
) -> tuple[str, ...]:
    """Return a few hundred texts: of every script, of a tokeniser's own tokens, and long ones.

    Args:
        tokens: Tokens of the tokeniser, in any order.
        special: Tokens that stand for more than their characters.
        max_length: Limit in tokens; some of the texts exceed it.
    """
    chosen = tokens[:: max(1, len(tokens) // OWN_TOKENS)]
    plain = [token.replace("##", "").replace("▁", " ").replace("Ġ", " ") for token in chosen]
    joined = [" ".join(plain[n : n + 8]) for n in range(0, len(plain), 8)]
    glued = ["".join(chosen[n : n + 4]) for n in range(0, len(chosen), 4)]
    within = [
        text
        for token in special
        for text in (token, f"a {token} b", f"a{token}b", f"{token}  {token}", token.lower())
    ]
    words = "the battery is good and the screen is bad "
    long = [
        words * (1 + max_length // 4),
        "x" * (2 * max_length + 1),
        "漢字かな" * (1 + max_length // 2),
        "é, e\u0301! " * max_length,
        ("one" + " " * 40 + "two\n") * (1 + max_length // 2),
        " ".join(plain) + " " + words * max_length,
    ]
    return (*WRITTEN, *map(_words, BLOCKS), *joined, *glued, *within, *long)


def _words(first: int) -> str:
    letters = "".join(chr(first + n) for n in range(LETTERS))
    return f"{letters[:4]} {letters[4:]}, {letters[::-3]} ok{letters[0]} {letters.upper()}"
