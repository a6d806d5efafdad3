"""Makes upstream.json: hashes of the rows that the generators of NVIDIA/RULER (commit c3f5e3b) write, with the toy essay and questions of
the tests, the wrapper meta-llama3, tokens counted as words, and sentences cut at white space after a period.

    make_upstream.py RULER/scripts/data >upstream.json      (needs numpy, scipy, tqdm, wonderwords 3.0.1)
"""
import hashlib, json, os, pathlib, shutil, subprocess, sys, tempfile

TASKS = {
    "niah_single_1": ("niah", "noise words numbers 1 1 1"), "niah_single_2": ("niah", "essay words numbers 1 1 1"),
    "niah_single_3": ("niah", "essay words uuids 1 1 1"), "niah_multikey_1": ("niah", "essay words numbers 4 1 1"),
    "niah_multikey_2": ("niah", "needle words numbers 1 1 1"), "niah_multikey_3": ("niah", "needle uuids uuids 1 1 1"),
    "niah_multivalue": ("niah", "essay words numbers 1 4 1"), "niah_multiquery": ("niah", "essay words numbers 1 1 4"),
    "vt": ("variable_tracking", "noise"), "cwe": ("common_words_extraction", ""), "fwe": ("freq_words_extraction", ""),
    "qa_1": ("qa", "squad"), "qa_2": ("qa", "hotpotqa"),
}
FLAGS = {
    "niah": ["type_haystack", "type_needle_k", "type_needle_v", "num_needle_k", "num_needle_v", "num_needle_q"],
    "variable_tracking": ["type_haystack"], "qa": ["dataset"],
}
TOKENIZER = """
class Words:
    text_to_tokens = staticmethod(str.split)
def select_tokenizer(kind, path):
    return Words
"""
SENTENCES = r"""
import re
def sent_tokenize(text):
    return re.split(r"(?<=[.!?])\s+", text)
"""


def toy_data(folder):
    def words(start, step, n):
        return " ".join(f"w{(start + step * i) % 997}" for i in range(n))

    essay = "\n".join(f"Sentence number {i} of the test essay talks about item {7919 * i % 1000} and ends here." for i in range(3000))
    squad = [{"paragraphs": [{
        "context": f"Article {a} paragraph {p} {words(131 * a + 17 * p, 7, 40)}.",
        "qas": [{"question": f"What is said in article {a} paragraph {p} question {q}?", "is_impossible": q == 1,
                 "answers": [{"text": f"w{(131 * a + 17 * p) % 997}"}, {"text": f"Article {a}"}]} for q in range(2)],
    } for p in range(5)]} for a in range(60)]
    hotpotqa = [{"question": f"Which hop is {a}?", "answer": f"w{3 * a % 997}", "context": [
        [f"T{t}", [f"s{t}x{k} {words(31 * t + 5 * k, 1, 10)}. " for k in range(3)]] for t in [(7 * a + j) % 300 for j in range(10)]
    ]} for a in range(80)]
    for name, value in (("PaulGrahamEssays", {"text": essay}), ("squad", {"data": squad}), ("hotpotqa", hotpotqa)):
        (folder / f"{name}.json").write_text(json.dumps(value))


def main():
    index = {}
    with tempfile.TemporaryDirectory() as work:
        data = pathlib.Path(work, "data")
        shutil.copytree(sys.argv[1], data)
        (data / "tokenizer.py").write_text(TOKENIZER)
        (data / "synthetic/nltk").mkdir()
        (data / "synthetic/nltk/__init__.py").write_text("")
        (data / "synthetic/nltk/tokenize.py").write_text(SENTENCES)
        toy_data(data / "synthetic/json")
        (data / "synthetic/json/english_words.json").write_text("{}")  # read always, used above 8166 words only
        sys.path[:0] = [str(data), str(data / "synthetic")]
        from constants import TASKS as texts
        from template import Templates
        for length in (1024, 4096):
            for task, (script, values) in TASKS.items():
                text = texts[script]
                template = Templates["meta-llama3"].format(task_template=text["template"]) + text["answer_prefix"]
                flags = [part for flag, value in zip(FLAGS.get(script, []), values.split()) for part in (f"--{flag}", value)]
                subprocess.run([sys.executable, str(data / f"synthetic/{script}.py"), "--save_dir", work, "--save_name", task,
                                "--tokenizer_path", "-", "--max_seq_length", str(length), "--tokens_to_generate",
                                str(text["tokens_to_generate"]), "--num_samples", "2", "--template", template, *flags],
                               check=True, cwd=data / "synthetic")
                rows = [json.loads(line) for line in pathlib.Path(work, task, "validation.jsonl").read_text().splitlines()]
                for row in rows:
                    row["sha256_input"] = hashlib.sha256(row.pop("input").encode()).hexdigest()
                index[f"{length}/{task}"] = rows
    json.dump(index, sys.stdout, indent=1)
    print()


main()
