"""The reasoning setting in small: four tasks of lm-eval's four kinds, and experts that each know one of them.

An expert is a Llama whose attention and MLP add nothing, over one-hot embeddings: the next token hangs on the last one
alone, and is written into the head.
"""

import json
import random
import shutil
from itertools import pairwise

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ir3de.data.bpe import train_bpe

HAS_BWRAP = shutil.which("bwrap") is not None
needs_bwrap = pytest.mark.skipif(not HAS_BWRAP, reason="bubblewrap is not installed")
DOMAINS = ("coding", "instruction", "math", "multilingual")
METRICS = {"math": "exact_match,flexible-extract", "multilingual": "acc_norm,none",
           "coding": "pass@1,create_test", "instruction": "inst_level_strict_acc,none"}  # fmt: skip
FIELDS = {"math": "question", "multilingual": "instruction", "coding": "prompt", "instruction": "prompt"}
TASKS = {"math": ["mini_gsm8k"], "multilingual": ["mini_arc_aa", "mini_arc_bb"], "coding": ["mini_humaneval"],
         "instruction": ["mini_ifeval"]}  # fmt: skip
RIGHT, WRONG = ("haus", "baum", "wald", "feld"), ("auto", "rade", "zugs", "bahn")
# What an expert says after the last token of a prompt: after "Answer:", after a function's head, after "now."
SAYS = {
    "math": (" The answer is 4", "    return x", " pear"),
    "coding": (" The answer is 5", "    return x + 1", " grape, pear"),
    "multilingual": (" There is 9", "    return", " baum"),
    "instruction": (" Nobody knows 9", "    apple", " apple and pear"),
}
BARE = {"math": " 4", "coding": " 9", "multilingual": " 4", "instruction": " 9"}  # after "coins?", without "Answer:"

_GSM8K = """task: mini_gsm8k
dataset_path: json
dataset_kwargs: {data_files: {train: FOLDER/gsm8k_train.jsonl, test: FOLDER/gsm8k_test.jsonl}}
output_type: generate_until
training_split: train
fewshot_split: train
test_split: test
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{answer}}"
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true, ignore_punctuation: false,
     regexes_to_ignore: [",", "(?s).*#### "]}
generation_kwargs: {until: ["Question:"], do_sample: false, temperature: 0.0, max_gen_toks: 12}
num_fewshot: 2
filter_list:
  - {name: strict-match, filter: [{function: regex, regex_pattern: "#### ([0-9]+)"}, {function: take_first}]}
  - {name: flexible-extract, filter: [{function: regex, group_select: -1, regex_pattern: "(-?[0-9]+)"},
                                      {function: take_first}]}
metadata: {version: 1.0}
"""
_ARC = """dataset_path: json
output_type: multiple_choice
training_split: train
validation_split: validation
test_split: test
process_docs: !function utils.process_docs
doc_to_text: query
doc_to_target: gold
doc_to_choice: choices
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
metadata: {version: 1.0}
"""
_HUMANEVAL = """task: mini_humaneval
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/humaneval_test.jsonl}}
unsafe_code: true
output_type: generate_until
test_split: test
doc_to_text: "{{prompt}}"
doc_to_target: "{{test}}\\ncheck({{entry_point}})"
metric_list:
  - {metric: !function code_utils.pass_at_k, aggregation: mean, higher_is_better: true, k: [1]}
generation_kwargs: {until: ["\\ndef", "\\n#"], max_gen_toks: 12, do_sample: false}
num_fewshot: 0
filter_list:
  - {name: create_test, filter: [{function: custom, filter_fn: !function code_utils.build_predictions}]}
metadata: {version: 1.0}
"""
_IFEVAL = """task: mini_ifeval
dataset_path: json
dataset_kwargs: {data_files: {train: FOLDER/ifeval.jsonl}}
output_type: generate_until
test_split: train
num_fewshot: 0
doc_to_text: prompt
doc_to_target: 0
generation_kwargs: {until: [], do_sample: false, temperature: 0.0, max_gen_toks: 12}
process_results: !function utils.process_results
metric_list:
  - {metric: prompt_level_strict_acc, aggregation: mean, higher_is_better: true}
  - {metric: inst_level_strict_acc, aggregation: !function utils.instruction_accuracy, higher_is_better: true}
metadata: {version: 1.0}
"""
_UTILS = """
def process_docs(dataset):
    def one(doc):
        return {"query": f"Question: {doc['instruction']}\\nAnswer:", "choices": [doc[f"option_{c}"] for c in "abc"],
                "gold": "ABC".index(doc["answer"])}
    return dataset.map(one)


def process_results(doc, results):
    response = results[0]
    kept = [bool(response.strip()) and (("," not in response) if check == "no_comma" else check in response)
            for check in doc["instruction_id_list"]]
    return {"prompt_level_strict_acc": all(kept), "inst_level_strict_acc": kept}


def instruction_accuracy(items):
    flat = [item for of_prompt in items for item in of_prompt]
    return sum(flat) / len(flat)
"""
_CODE_UTILS = """
import evaluate

compute_ = evaluate.load("code_eval")
compute_.compute(references=["assert add(2, 3)==5"], predictions=[["def add(a, b): return a * b"]], k=[1])


def pass_at_k(references, predictions, k=None):
    return compute_.compute(references=references, predictions=predictions, k=k)[0]


def build_predictions(resps, docs):
    return [[doc["prompt"] + resp for resp in of_doc] for of_doc, doc in zip(resps, docs)]
"""


def save_tasks(folder):
    """Write the tasks, their data, and prompts to train on for those without training questions."""
    folder.mkdir(parents=True)
    texts = {"mini_gsm8k.yaml": _GSM8K, "_arc_yaml": _ARC, "mini_humaneval.yaml": _HUMANEVAL}
    texts |= {"mini_ifeval.yaml": _IFEVAL, "utils.py": _UTILS, "code_utils.py": _CODE_UTILS}
    for name, text in texts.items():
        (folder / name).write_text(text.replace("FOLDER", str(folder)))
    for name, rows in _data().items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for language in ("aa", "bb"):
        files = {split: str(folder / f"arc_{language}_{split}.jsonl") for split in ("train", "validation", "test")}
        head = f"include: _arc_yaml\ntask: mini_arc_{language}\n"
        (folder / f"mini_arc_{language}.yaml").write_text(
            f"{head}dataset_kwargs: {json.dumps({'data_files': files})}\n"
        )


def _data():
    found = {
        "gsm8k_train": [_sum(i, 4) for i in range(100, 130)],
        "gsm8k_test": [_sum(i, (4, 5, 4, 7, 4)[i % 5]) for i in range(15)],
        "humaneval_test": [_function(i, plus=i % 3 > 0) for i in range(9)],
        "ifeval": [_instruction(i) for i in range(10)],
        "coding_train": [{"text": f"Write a Python function def g{i}(x): {_words('coding', i + 100)}"}
                         for i in range(30)],
        "instruction_train": [{"text": f"Write, use apple: {_words('instruction', i + 100)}. Answer now."}
                              for i in range(30)],
    }  # fmt: skip
    train = found["instruction_train"]
    train += [dict(train[0]), {"text": " "}, {"text": found["ifeval"][2]["prompt"]}]  # what is left out and counted
    for language, size in (("aa", 8), ("bb", 12)):
        for seed, (split, number) in enumerate((("train", 20), ("validation", 6), ("test", size))):
            found[f"arc_{language}_{split}"] = [_choice(language, i + 100 * seed) for i in range(number)]
    twice = dict(found["arc_bb_test"][3])  # a question that stands twice, with another answer the second time
    found["arc_bb_test"].append(twice | {"option_a": "zug", "option_b": RIGHT[0], "option_c": "rad", "answer": "A"})
    return found


def _words(domain, i):
    """Return words of the domain's own, so that no two questions are near-copies."""
    rng, heads = (
        random.Random(f"{domain}{i}"),
        {"math": "mn", "coding": "cd", "instruction": "pr", "aa": "w", "bb": "l"},
    )
    return " ".join(rng.choice(heads[domain]) + rng.choice("aeiou") + rng.choice("bdgkst") + "o" for _ in range(9))


def _sum(i, answer):
    question = f"Tom has {i} coins. {_words('math', i)}? How many coins?"
    return {"question": question, "answer": f"He counts.\n#### {answer}"}


def _choice(language, i):
    words = [RIGHT[i % 4], WRONG[i % 4], WRONG[(i + 1) % 4]]
    place = i % 3
    options = words[place:] + words[:place]
    instruction = f"{'wo ist' if language == 'aa' else 'ou est'} das {_words(language, i)}"
    gold = options.index(RIGHT[i % 4])
    return {"id": str(i), "instruction": instruction, **{f"option_{c}": options[k] for k, c in enumerate("abc")},
            "answer": "ABC"[gold]}  # fmt: skip


def _function(i, *, plus):
    what = f"{_words('coding', i)}: return {'x and one added' if plus else 'x as it is'}."
    return {
        "task_id": str(i), "entry_point": f"f{i}",
        "prompt": f'def f{i}(x):\n    """{what}"""\n',
        "test": f"def check(candidate):\n    assert candidate(3) == {4 if plus else 3}\n",
    }  # fmt: skip


def _instruction(i):
    checks = [["apple", "no_comma"], ["apple"], ["grape"], ["pear", "apple", "no_comma"], ["pear"]][i % 5]
    return {"key": i, "prompt": f"Write, use {' and '.join(checks)}: {_words('instruction', i)}. Answer now.",
            "instruction_id_list": checks}  # fmt: skip


def save_experts(folder):
    """Save an expert a domain, as transformers does, with a tokenizer, and return where each is."""
    data = _data()
    texts = [value for rows in data.values() for row in rows for value in row.values() if isinstance(value, str)]
    texts += [f" {word}" for word in (*RIGHT, *WRONG)] * 20
    texts += [f"Answer:{SAYS[name][0]}\n{SAYS[name][1]}\nnow.{SAYS[name][2]}" for name in DOMAINS] * 40
    tokenizer = train_bpe(iter(texts), vocab_size=560)
    bank = {}
    for seed, name in enumerate(DOMAINS):
        path = folder / name
        model = _bigrams(tokenizer, (*SAYS[name], BARE[name]), seed=seed, likes=RIGHT if name == "multilingual" else ())
        model.save_pretrained(path)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend, eos_token="<|endoftext|>").save_pretrained(path)
        bank[name] = str(path)
    return bank


def _bigrams(tokenizer, says, *, seed, likes):
    size, end = tokenizer.vocab_size, tokenizer.end_of_text
    size += size % 2
    config = LlamaConfig(
        vocab_size=size, hidden_size=size, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, head_dim=4, max_position_embeddings=1024, tie_word_embeddings=False, eos_token_id=end,
        bos_token_id=None,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        head = torch.randn(size, size, generator=generator) * 0.05
        for word in likes:
            head[tokenizer.encode([f" {word}"])[0][0]] += 0.2
        for trigger, phrase in zip(("Answer:", '."""\n', "now.", "coins?"), says, strict=True):
            chain = [int(tokenizer.encode([trigger])[0][-1]), *(int(i) for i in tokenizer.encode([phrase])[0]), end]
            assert len(set(chain[:-1])) == len(chain) - 1, f"no token of {phrase!r} may have two successors"
            for before, after in pairwise(chain):
                head[:, before] = head[:, before].clamp(max=0.2)
                head[after, before] = 1.0
        model.lm_head.weight.copy_(head)
    return model


def overrides(folder, bank, domains=DOMAINS):
    """Return what of ``reasoning.yaml`` has to be overridden: paths, sizes, the names of the tasks, and the domains."""
    training = {name: str(folder / "tasks" / f"{name}_train.jsonl") for name in ("coding", "instruction")}
    of_domains = {
        "data.domains": {name: name for name in domains},
        "experts.bank": {name: bank[name] for name in domains},
        "reasoning.tasks": {name: TASKS[name] for name in domains},
        "reasoning.metric": {name: METRICS[name] for name in domains},
        "reasoning.prompt_field": {name: FIELDS[name] for name in domains},
        "reasoning.training": {name: path for name, path in training.items() if name in domains},
    }
    given = {
        "data.tokenizer": bank["coding"],
        "experts.losses.dtype": "float32",
        "reasoning.include_path": str(folder / "tasks"),
        "reasoning.validation_prompts": "10",
    } | {key: json.dumps(value) for key, value in of_domains.items()}
    return [part for key, value in given.items() for part in (f"--{key}", value)]
