"""stories260K, a Hugging Face directory with a SentencePiece tokenizer."""

import re

import suite
from tools import EXACT, after, run, shared

FOLDER = "models/stories260K"


def check_ids(name: str) -> None:
    content = shared(f"{FOLDER}/expected-stories260K-{name}.txt").read_text()
    prompt = re.search(r"prompt=\[(.*)\]", content)
    greedy = re.search(r"greedy_ids.*: (.*)", content)
    assert prompt and greedy
    wanted_prompt = [int(word) for word in after(content, "prompt_ids: ").split()]
    wanted = [int(word) for word in greedy[1].split()][len(wanted_prompt) - 1 :]
    source = ["-p", prompt[1], "-n", len(wanted)]
    done = run(shared(FOLDER), *source, *EXACT)
    sequence = done.report["sequences"][0]
    assert sequence["prompt_ids"] == wanted_prompt
    assert sequence["ids"] == wanted
    text = content.split("\ntext:\n")[1]
    assert (prompt[1] + done.stdout).strip() == text.strip()


suite.register("stories260K-1", lambda: check_ids("1"))
suite.register("stories260K-2", lambda: check_ids("2"))


@suite.check("stories260K-nll")
def nll() -> None:
    """The first 200 documents of the validation text."""
    content = shared(f"{FOLDER}/expected-nll.txt").read_text()
    words = after(content, "260K val, first 200 docs:").split()
    wanted = dict(zip(words[::2], map(float, words[1::2])))
    text = shared("text/tinystories_val_chunks.rs.txt")
    documents = ["--split-documents", "--max-documents", 200]
    done = run(shared(FOLDER), "--score", text, *documents, *EXACT)
    assert done.report["tokens"] == wanted["scored_tokens"]
    assert abs(done.report["nll"] - wanted["mean_nll"]) <= 1e-3


suite.main()
