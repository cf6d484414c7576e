"""What a verdict looks like: the rules of the lenient reading as a table, and the words that undo one.

Options are first put as marks (`evaluation.marks`): `{O}` in a rule is an option's letter, its text, or both.
"""

from __future__ import annotations

import re

from evaluation.claims import FINAL, LEANS, Rule
from evaluation.marks import LETTER, ODD, TEXT

MARK = f"[{LETTER}-{ODD}]"
FILL = (
    r"(?:[\s\"':=(\[{⟪,【-]|(?:the|option|choice|letter|answer|number|clearly|definitely|certainly|probably|most|likely|"
    r"indeed|therefore|thus|simply|just|still|also|actually|as|选项|选)(?=[\s:])|(?-i:an?)\s|(?:>|→)\s?)*"
)
END = (
    r"(?=\s*(?:$|[.,;:!)\]}\"'/&⟫<|。、】](?!\w)|[–—]|-(?!\w)|/|[\u2e80-\u9fff\uac00-\ud7af])|[^\S\n]*\n"
    rf"|\s+(?:because|since|given|due|based|which|that|is|was|and|or|but|not|rather|instead|over|as)\b|\s+{MARK}"
    r"|\s\((?:(?:and|but)\s)?(?:not|rather|instead)\b|\s+(?-i:[A-Z][a-z'])"
    rf"|(?<=[{LETTER}-\ue00f])\s+(?:in|for|with|on|here|it)\b|\s\()"
)
START = (
    r"(?:^|[\n.,;:!?(>|。\"]\s*|\b(?:so|therefore|thus|hence|that|think|believe|say|conclude|consequently|accordingly|"
    r"overall|however|but|and|clearly|such|surely|indeed|now|then|answer|the|also|although|where|while|[-–—])\s+)"
)
GOOD = r"(?:correct|right|best|likely|final|suitable|appropriate|probable|accurate|selected|chosen|my|true|consistent)"
NOUN = (
    rf"(?:answer|{GOOD}\s(?:single\s)?(?:best\s|correct\s)?(?:option|choice|pick|selection|diagnosis|response|answer|"
    r"match|fit)|diagnosis|conclusion)"
)
IS = r"(?:\s(?:is|was|should be|must be|would be|would|has to be|remains|will be)|[\"']?\s?(?:[-=]+>|[:=→]|\s-)|\sisn)"
OF = (
    r"(?:,?\s(?:here|among|of|for|in|from|to|that|with|I|given|based|consistent|most|and|then|therefore)\b"
    rf"[^.;:!?\n{LETTER}-{ODD}]{{0,50}}?(?=,?\s(?:is|was|should|must|would|has|remains|will)\b|\s?[:=→]))?"
)
NOT = r"(?:\s(?P<neg>not|never)\b|(?P<nt>n't)|\s(?P<neither>neither)\b)?"
SUCH = r"(?:\s(?:also|clearly|therefore|thus|then|indeed|the|most|single|very|probably|overall))*"
COPULA = r"(?:is|was|seems|would be|appears to be|remains|must be)(?P<neg>n't|\snot)?"
PREDICATE = (
    rf"(?:{COPULA}{SUCH}\s(?:(?:correct|right|true|best"
    r"(?=\s?(?:answer|option|choice|pick|selection|response|here|[.,;!]|$))|most "
    r"(?:appropriate|suitable|accurate))\b(?!\s(?:side|lung|upper|lower|middle|seen|treated))"
    r"|better(?=\s*(?:$|[.,;!\n]|answer|choice|option))|answer\b)|it is(?=[.!])|is\sthe\sone\b)"
)
LEANING = (
    rf"(?:{COPULA}{SUCH}\s(?:(?:best|better)\s(?:fit|match|explanation)|most (?:likely|consistent|probable|plausible))"
    r"\b"
    r"|(?:fits|matches|explains it)\s(?:the \w+ )?best\b)"
)
BE = r"(?:is|was|are|would be|seems|can be|could be|must be|looks)\s(?:therefore\s|thus\s|also\s|clearly\s)?"
WRONG = rf"{BE}(?:incorrect|wrong|false|excluded|ruled out|rejected|eliminated|crossed off|out)\b"


def rule(body: str, **how: object) -> Rule:
    """A rule of the table; `{O}` is an option at which a phrase may end, `{o}` any, `{F}` fillers, `{S}` a start."""
    places = {"{O}": f"(?P<o>{MARK}){END}", "{o}": f"(?P<o>{MARK})", "{F}": FILL, "{S}": START}
    for name, pattern in places.items():
        body = body.replace(name, pattern)
    return Rule(re.compile(body, re.IGNORECASE), **how)


RULES = (
    rule(rf"\bfinal\s(?:answer|option|choice|decision|verdict|diagnosis){IS}?{NOT}{{F}}{{O}}", rank=FINAL, behind=True),
    rule(r"[\"'](?:\w*answer\w*|\w*choice\w*|\w*option|答案)[\"']\s?:{F}{o}", rank=FINAL),
    rule(rf"\b{NOUN}{OF}{IS}?{NOT}(?:{{F}}|\s?\[){{O}}", behind=True),
    rule(r"(?:^|\n)(?:option|choice|pick|verdict|selection|result|final|ans|response)\s?[:.=]{F}{O}", behind=True),
    rule(r"(?:\b(?:I|we)(?:'d|'ll|\s(?:would|will|should|must|can|have to|therefore))*\s(?:choose|pick|select|go with|"
         r"opt for|say|answer)|\bI'm going with|\blet(?:'s|\sus)\s(?:choose|pick|select|go with)"
         r"|\b(?:conclude that it is|(?:leads|brings) (?:us|me) to)"
         r"|(?:^|(?<=[.!?:\n])|(?<=[.!?:]\s))(?:so,?\s)?(?:pick|choose|select))\s{F}{O}", behind=True),
    rule(r"\b(?:it|that|this|which)(?:'s|\sis|\smust be)\s{F}{O}", behind=True, letters=True),
    rule(r"\bmakes?\s{F}{o}\s(?:the\s)?(?:\w+\s)?(?:correct|right|best|answer|likely)\b"),
    rule(r"\b(?:most|best)\s(?:consistent|compatible|in keeping)\swith\s{F}{O}", rank=LEANS, behind=True, letters=True),
    rule(r"\bpoints to\s{F}(?P<o>" + MARK + r")\sas the (?:answer|correct)", behind=True),
    rule(r"\b(?:therefore|thus|hence|so|in conclusion|conclusion|consequently|accordingly)[,:]?"
         r"(?:\s(?:it|this)(?:'s|\sis|\smust be))?\s{F}{O}(?!\s(?:is|was|would|can)\b)", behind=True),
    rule(rf"{{S}}{{F}}{{o}}\s?,?\s{PREDICATE}"),
    rule(rf"{{S}}{{F}}{{o}}\s?,?\s{LEANING}(?!\s(?:answer|option|choice))", rank=LEANS),
    rule(rf"{{S}}{{F}}{{o}}\s?,?\s{LEANING}\s(?:answer|option|choice)"),
    rule(rf"{{S}}{{F}}{{o}}\s{WRONG}", denies=True),
    rule(rf"{{S}}{{F}}{{o}}\s{BE}(?:unlikely|less likely)\b", rank=LEANS, denies=True),
    # Chinese, and the sentence of other languages
    rule(r"最终(?:的)?(?:答案|选择)(?:应该|应)?[是为选]?{F}{O}", rank=FINAL),
    rule(r"(?:答案|正确的?(?:选项|一项|诊断)|诊断)】?(?:应该|应当|应|就|可能)?[是为选]?(?P<neg>不是|不可能是)?{F}{O}"),
    rule(r"(?<![不可能待])(?:故|应|因此|所以|则|我|本题)?,?选(?:择|项?[是为])?{F}{O}(?!项?(?:不|错))"),
    rule(r"{S}?{o}(?:选?项)?(?:是|为)?(?:唯一|最)?(?:正确|恰当|合适|符合题意)(?!吗)(?:的|答案)?"),
    rule(r"{o}(?:选?项)?(?:是|为)?(?:错误|不正确|不对)", denies=True),
    rule(r"\b(?:respuesta|opción|réponse|antwort|resposta|risposta)"
         r"(?:\s(?:correcta|correcte|corretta|correta|finale?))?\s?(?:es|est|ist|é|è|:)(?:\s(?:la|le|l'|die|a|opción|option|letra|lettre))*{F}{O}"),
    rule(r"(?:正解は|答えは|정답은|ответ\s?[:–—-]?){F}{O}"),
)  # fmt: skip

DOUBT = re.compile(
    r"\b(?:not|never|unlikely|doubt|if|whether|would|could|might|may|someone|suppose|assuming|cannot|no|mistake|why|"
    r"initially|at first|few|some|nobody|hardly|unless|false|wrong|incorrect|used to|(?:I|we)(?: first)? thought)\b"
    r"|n't\b",
    re.IGNORECASE,
)
"""Words before a claim, in its clause or in what it depends on, for which it is none."""
SURE = re.compile(
    r"\b(?:no|without(?: a)?|beyond) doubt\b|\b(?:I|we)(?:'d|\swould)\s(?:say|argue|go|choose)\b"
    r"|\bnot (?:surprisingly|only)\b",
    re.IGNORECASE,
)
LEADING = re.compile(r".*\b(?:think|believe|say|so|therefore|that)\s", re.IGNORECASE)
CLAUSE = re.compile(r",\s(?:but\s|and\s|so\s)?|\b(?:correct|right|best|likely)\s(?:and|but)\s", re.IGNORECASE)
OPPOSITE = re.compile(
    r"\b(?:wrong|incorrect|false|least|less)\s+(?:most\s+)?(?:likely\s+)?$|\bif so,\s.{0,20}$", re.IGNORECASE
)
HYPOTHETICAL = re.compile(r"\s?\?|[ ](?:\w+[ ])?(?:if|unless)\b", re.IGNORECASE)
TAKEN_BACK = re.compile(
    r"\s*(?:,\s*but\s(?:it|this|that)\s(?:is|was)(?:n't|\snot)\b"
    r"|(?:[.;]\s*(?:this|that|it)|,\s*which)\s(?:is|was)\s(?:wrong|incorrect|false|not\s(?:right|correct|true))\b)"
    r"|\s(?:is|was|seems|can be)\s(?:not|unlikely|excluded|ruled out|wrong|incorrect|rejected|a (?:distractor|trap))\b"
    r"|\s(?:isn't|wasn't|cannot be|can't be)",
    re.IGNORECASE,
)
CORRECTED = re.compile(
    r"\s*[,.;–—-]+\s*(?:but\s)?(?:no|wait|sorry|actually|rather|correction|on (?:second thoughts?|reflection))\b[\s,:]*"
    rf"(?P<o>{MARK}){END}",
    re.IGNORECASE,
)
NOT_BUT = re.compile(rf"[,\s]+but\s(?:rather\s)?{FILL}(?P<o>{MARK}){END}", re.IGNORECASE)
TURN = re.compile(
    r"(?P<all>\b(?:wait(?=[,.!…]|\sa\s|-)|scratch that|hold on|let me (?:re|correct|look|double|check|think again)"
    r"|(?:have|need) to (?:correct|re)|on (?:reflection|closer|second)|correction"
    r"|made an? (?:mistake|error)|was mistaken|hmm|actually,? no|not right\b(?=[.!])|cannot be right(?=[.!]))"
    r"|等等|等一下|(?<![\ue000-\ue03f项])不对(?=[,.。!])|重新|有误)"
    r"|\b(?:no(?=[,.!])|actually|rather(?! than)|instead(?! of)|sorry|revised?|mistake|reconsider|in fact)\b",
    re.IGNORECASE,
)
JOIN = re.compile(
    r"(?:\s*(?:,?\s*(?:and/or|or|and|as well as|plus|或|和)\s|/|,|&)|[ ]|\s?\((?=or|and|possibly|perhaps|maybe))\s*"
    rf"(?:(?:or|and|possibly|perhaps|maybe|even|also)\s+)*{FILL}(?P<o>{MARK})"
    r"(?!\s(?:is|was|would|can|does|usually|has)\b)",
    re.IGNORECASE,
)
ALIKE = re.compile(rf"\s*,?\s*(?:and\s)?(?:so|as)\s(?:is|was)\s{FILL}(?P<o>{MARK})", re.IGNORECASE)
REFUSAL = re.compile(
    r"\b(?:cannot|can't|can not|unable to|not able to|(?:im|not )possible to)\s+(?:\w+\s+)?"
    r"(?:tell|say|determine|answer|decide|choose|assess|see|view|help|interpret|provide|give|diagnose)\b"
    r"|\b(?:cannot|can't|can not) be (?:\w+ )?"
    r"(?:told|said|determined|assessed|seen|interpreted|answered|made|given|established)\b"
    r"|\b(?:insufficient|not enough information|not sure|unsure|don't know|do not know|none of the (?:above|options)"
    r"|as an ai|unable to answer|enough (?:\w+ )?to (?:decide|tell|answer|choose)|unknown)\b"
    r"|无法|我?不能(?:确定|根据|诊断|回答)|信息不足|抱歉",
    re.IGNORECASE,
)
INTRO = re.compile(
    r"^(?![^\n]*\b(?:other|remaining|(?:correct|best) (?:option|choice))\b)[^.\n]{0,80}"
    r"(?:\b(?:options?|choices?|alternatives?|candidates?|one by one|each)\b[^.\n]{0,40}:?"
    r"|(?:选项|分析)[^。\n]{0,8}:)$",
    re.IGNORECASE | re.MULTILINE,
)
NAMED, WORDED = f"[{LETTER}-\ue00f\ue020-{ODD}]", f"[{TEXT}-\ue01f]"
SAYS = r"[ ]?(?:选?项)?(?:不|错|正|对|可|的|是|[ ](?:is|was|would|can|could|does|fits|seems|has|it|or|and|must|may)\b)"
HEADING = re.compile(
    r"(?:^|\n)(?:[-•|>\[+]\s?|\(?\d{1,2}[.)]\s?)*"
    rf"(?P<o>{NAMED}(?!{SAYS}|(?!选?项)[\u2e80-\u2fff\u3040-\u9fff])|{WORDED}(?=\s?[\]:).,、|(–—-]|项|\s?\n|\s?$))"
    rf"|(?<=[.;!?。] )(?P<inline>{NAMED})(?=\s?[:)])"
)
EXPLAINS = re.compile(
    r"(?:here'?s? (?:is )?why|explanation|rationale|reasoning|justification|because|解析|理由|解释)", re.IGNORECASE
)
"""How a line begins that explains the answer in the line before."""
OPENING = re.compile(
    rf"(?P<o>{NAMED})(?:\s?[.:,;)–—-]\s|\s\(|\s(?:because|since|as)\b)"
    rf"(?:(?!{MARK}|\b(?:not|no|absent|unlikely|less|would|incorrect|wrong|rare|if)\b|n't).)*[.)]",
    re.IGNORECASE | re.DOTALL,
)
"""A text that opens with an option, names no other one, and has nothing to say against it."""
LEFT_OPEN = re.compile(r"[^.!?。!)\]}\"'|>⟫:;]$")
