"""Languages: recognized by their function words, stemmed by Snowball.

The language is a guess, so callers index the English stem of a word as well.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Final

from py_rust_stemmers import SnowballStemmer

ENGLISH: Final = "english"

FUNCTION_WORDS: Final[Mapping[str, frozenset[str]]] = {
    language: frozenset(words.split())
    for language, words in {
        ENGLISH: """
            a an and are as at be been but by can could did do does for from had has have he her
            hers him his how i if in into is it its me my of on or our she so some than that the
            their them then there these they this those to us was we were what when where which who
            whom why will with would you your
        """,
        "danish": """
            af alle at blev da de den der deres det dette dig din du efter eller en er et for fra
            ham han har havde hende hun hvad hvem hvor hvornår hvorfor i ikke jeg kan med men mig
            min mit når og om op på sig sin skal som til ud under var ved vi vil være
        """,
        "dutch": """
            aan als bij dat de deze die dit door een en er geen had heb hebben heeft het hij hoe
            hun ik in is je kan maar me met mijn naar niet nog of om ons ook op over te tot uit van
            voor waar waarom wanneer wat we werd wie wij wordt zal ze zich zij zijn zo
        """,
        "finnish": """
            ei että hän hänen ja jos joka jotka kanssa koska kuin kuka milloin minun minä missä
            miten mitä mutta myös ne niin oli olen olet olivat on ovat sen se siellä sinä tai tämä
            vain
        """,
        "french": """
            ai as au aux avec ce ces cette c'est dans de des du elle en est et eu il ils j'ai je la
            le les leur lui ma mais me mes moi mon ne nous on ont ou où par pas pour pourquoi qu
            quand que quel quelle qui quoi sa se ses son sont sur ta te tes toi ton tu un une vos
            votre vous y était été être
        """,
        "german": """
            aber als am an auch auf aus bei bin bist da das dass dem den der des die du ein eine
            einem einen einer er es für haben hat hatte hier ich ihm ihn ihr im in ist ja kein
            keine man mein meine mit nach nicht noch oder sich sie sind so um und uns unser von vor
            wann war waren warum was welche welcher wenn wer werden wie wir wird wo zu zum zur über
        """,
        "hungarian": """
            a az de egy ez ezt hogy hol hogyan ha is itt ki kell le már még meg mi mikor miért mint
            most nem nekem ne neki ott ő és vagy van volt volna
        """,
        "italian": """
            a ai al alla anche che chi ci come con cosa da dal dalla dei del della delle di dove e
            era gli ha hai hanno ho i il in io la le lei lo loro lui ma mi mia mio nel nella non o
            per perché più quando quale quello questa questo se sei si sono su sua suo ti tu un una
            è
        """,
        "norwegian": """
            av at ble da de den der deres det dette deg din du eller en er et etter for fra ham han
            har hadde henne hun hva hvem hvor hvorfor i ikke jeg kan med meg men min mitt når og om
            på seg sin skal som til ut var ved vi vil være
        """,
        "portuguese": """
            a ao aos as com como da das de dele dela do dos e ela ele em era essa esse esta este eu
            foi isso já lhe mais mas me meu minha muito na não nas no nos nós o onde os ou para
            pela pelo por porque qual quando que quem se sem ser seu sua são só também te tem um
            uma você à é
        """,
        "romanian": """
            a acest această al ale am ai ar au ca când care ce cea cel cine cu cum de din după ea
            ei el este eu fi fost iar în la le lui mai mea meu mi nu o pe pentru prin sa se si și
            sunt sau unde un una unei unui
        """,
        "spanish": """
            a al como con cuando cuándo cuál de del desde donde dónde e el él ella ellos en era es
            esa ese esta este esto está fue ha han hay la las le les lo los me mi mis muy más nos
            no o para pero por porque qué que quién se ser si sin sobre son su sus sí también te
            tiene tu tus un una y ya yo
        """,
        "swedish": """
            av att blev där de dem den denna det detta dig din du efter eller en er ett för från
            han har hade henne hon honom hur i inte jag kan med men mig min mitt när och om på sig
            sin ska skulle som till upp ut vad var varför vem vi vid vill är
        """,
        "turkish": """
            ama ben beni benim bir biz bu çok daha de da değil gibi hangi için ile ise kim mı mi mu
            mü nasıl ne neden nerede o olan olarak sen şu ve veya ya zaman
        """,
    }.items()
}
"""Words that say nothing about a text, by the name of the language's stemmer."""

# Letters that hardly any other of these languages has: texts of one or two words need them.
_LETTERS: Final = {
    "german": "äöüß",
    "spanish": "ñ¿¡",
    "portuguese": "ãõ",
    "french": "èêœ",
    "swedish": "å",
    "danish": "ø",
    "romanian": "țș",
    "turkish": "ğış",
    "hungarian": "őű",
}

# Also English, mostly as another word, so they say nothing about the language.
_COMMON: Final = frozenset(re.findall(r"\w+", "care die em ha hat man met no son sin ten war ya"))
_LANGUAGES_OF: Final = {
    word: tuple(name for name, words in FUNCTION_WORDS.items() if word in words)
    for words in FUNCTION_WORDS.values()
    for word in words - _COMMON
} | {"I": (ENGLISH,)}
_OTHER_WORDS: Final = frozenset(_LANGUAGES_OF) - FUNCTION_WORDS[ENGLISH]
_SCRIPTS: Final = (
    ("russian", re.compile("[\u0400-\u052f]")),
    ("greek", re.compile("[\u0370-\u03ff\u1f00-\u1fff]")),
    ("arabic", re.compile("[\u0600-\u06ff\u0750-\u077f]")),
    ("tamil", re.compile("[\u0b80-\u0bff]")),
)


def language_of(words: Iterable[str], *, plain: bool = False) -> str:
    """Return the language with the most function words in a text.

    Args:
        words: The words of the text as they are written.
        plain: They are ASCII, so there is no need to look for special letters.

    Returns:
        The name of its stemmer; English at a tie, or if no word is known.
    """
    words = list(words)
    if plain and _OTHER_WORDS.isdisjoint(words):
        return ENGLISH
    votes = Counter(
        name for word in _LANGUAGES_OF.keys() & frozenset(words) for name in _LANGUAGES_OF[word]
    )
    if not plain:
        used = frozenset().union(*words)
        for name, letters in _LETTERS.items():
            votes[name] += not used.isdisjoint(letters)
    # In a fixed order: that of `votes` differs between processes.
    best = max(FUNCTION_WORDS, key=lambda name: votes[name])
    return best if votes[best] > votes[ENGLISH] else ENGLISH


def stem(word: str, language: str) -> str:
    """Return the stem of a folded word; the script decides the language where it can."""
    if not word.isascii():
        for name, script in _SCRIPTS:
            if script.search(word):
                language = name
                break
    return str(_stemmer(language).stem_word(word))


@cache
def _stemmer(language: str) -> SnowballStemmer:
    return SnowballStemmer(language)
