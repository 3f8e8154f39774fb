"""docs/troubleshoot.md has a word for every class of fault that the code can tell, and for every warning and error
that it logs."""

import re

from tools import ROOT, text

# How the code names a class, wherever it makes a fault or a failure of a step.
CLASSES = [
    re.compile(r'Fault::(?:stop|busy|retry|reject)\(\s*[\w"$ .]+,\s*"([a-z_]+)"'),
    re.compile(r'Fault::new\(\s*Verdict[^"]*"[^"]*",\s*"([a-z_]+)"|Fault::new\(\s*Verdict[^"]*op,\s*"([a-z_]+)"'),
    re.compile(r'Failure::new\(\s*"([a-z_]+)"'),
    re.compile(r'=> \((?:busy\(|Verdict::)[^"\n]*"([a-z_]+)"\)'),
    re.compile(r'const (?:CLASS|INVALID|HELD_BACK|HUB_RECREATED|UNDECODABLE): &str =\s*"([a-z_]+)"'),
    re.compile(r'class: "([a-z_]+)"\.into'),
]


def checks(_binary):
    page = text("docs/troubleshoot.md")
    yield "each class of fault is explained", [
        f"`{name}`, in {', '.join(sorted(files))}" for name, files in sorted(classes().items()) if f"`{name}`" not in page
    ]


    missing = [message for message in sorted(messages()) if message not in page and not message.startswith("leases have run out")]
    yield "each warning and error of the log is explained", missing


# A line of the log: its fields, and then the message.
LOGGED = re.compile(r'(?:warn|error)!\((.*?)\);', re.S)
MESSAGE = re.compile(r'(?<![=\w] )(?<!=)"((?:[^"\\]|\\.)+)"')


def messages() -> set:
    """The message of every warning and error, as one line."""
    found = set()
    for root in ["src", "eventhubs/src/client"]:
        for file in sorted((ROOT / root).rglob("*.rs")):
            if "tests" in str(file) or "simulation" in str(file):
                continue
            source = file.read_text().partition("\nmod tests {")[0]
            for body in LOGGED.findall(source):
                texts = [re.sub(r"\\\n\s*", "", text) for text in MESSAGE.findall(body)]
                found.update(text for text in texts[-1:] if " " in text and "{" not in text)
    return found


def classes() -> dict:
    """Every class, with the files that it is told in. Tests make up their own."""
    found = {}
    for file in sorted((ROOT / "src").rglob("*.rs")):
        path = str(file.relative_to(ROOT))
        if "memory" in path or "tests" in path or "simulation" in path:
            continue
        source = file.read_text().partition("\nmod tests {")[0]
        names = [name for pattern in CLASSES for groups in pattern.findall(source) for name in ([groups] if isinstance(groups, str) else groups)]
        for name in filter(None, names):
            found.setdefault(name, set()).add(path)
    return found
