"""A data module over made-up token sequences, for tests of modules and callbacks."""

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from tests.helpers.text import pad


def same(batch):
    """Return the batch as it is: it is collated already."""
    return batch


class MadeUpDomains(LightningDataModule):
    """Three domains whose tokens differ in frequency; sequences of 1 to 12 tokens over 20 words."""

    domain_names = ("maths", "code", "law")
    num_domains = 3

    def __init__(self, *, batch_size=4, num_workers=0, seed=0, train=30):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        p_EV = torch.rand(3, 20, generator=generator) ** 3 + 0.01
        self.splits = {}
        for split, size in (("train", train), ("validation", 21), ("test", 24)):
            domains = [i % 3 for i in range(size)]
            lengths = torch.randint(1, 13, (size,), generator=generator).tolist()
            rows = [
                torch.multinomial(p_EV[d], n, replacement=True, generator=generator).tolist()
                for d, n in zip(domains, lengths, strict=True)
            ]
            self.splits[split] = (rows, domains)
        self.batch_size, self.num_workers = batch_size, num_workers

    def _loader(self, split):
        rows, domains = self.splits[split]
        batches = []
        for start in range(0, len(rows), self.batch_size):
            index_B = torch.arange(start, min(start + self.batch_size, len(rows)))
            ids_BT, mask_BT = pad([rows[i] for i in index_B])
            domain_B = torch.tensor([domains[i] for i in index_B])
            batches.append({"input_ids": ids_BT, "attention_mask": mask_BT, "domain": domain_B, "index": index_B})
        return DataLoader(batches, batch_size=None, collate_fn=same, num_workers=self.num_workers)

    def train_dataloader(self):
        return self._loader("train")

    def val_dataloader(self):
        return self._loader("validation")

    def test_dataloader(self):
        return self._loader("test")

    def predict_dataloader(self):
        return self._loader("test")

    def counts(self):
        """Return the training split's counts, counted plainly."""
        counts_EV = torch.zeros(3, 20, dtype=torch.int64)
        for row, domain in zip(*self.splits["train"], strict=True):
            for token in row:
                counts_EV[domain, token] += 1
        return counts_EV
