"""Labels that are written as words arrive: the beam is kept from word to word."""

import weakref
from typing import NamedTuple

import torch
from fairseq.tasks import FairseqTask
from torch import Tensor, nn

from diffdecode.sequence import first_beam, next_beam
from fairseq_plugins.decoders import step_decoder
from fairseq_plugins.search import check_beam_size, only_model, scored_space
from fairseq_plugins.tasks.tagging.generator import n_best


class Labels(NamedTuple):
    """What is known of a sentence so far.

    Attributes:
        labels: those of the best hypothesis.
        final: how many of them, from the first on, no further word can change.
    """

    labels: list[str]
    final: int


class IncrementalTagger:
    """Labels the words of a sentence as they arrive; after the last one, as if they had come together.

    A word takes one step of the beam search. It may revise the labels of words before, as long as hypotheses
    on the beam disagree about them; labels in which all agree are final. With ``--encoder-lookahead n`` a
    word is labelled when n more have come, or the sentence ends. ``--search beam`` and the options
    ``--score-normalizer`` and ``--valid-transitions`` are those of the task.

    Args:
        model: a ``fixed_attention_lstm``, trained with ``--encoder-direction forward`` or ``word``.
        task: ``sequence_tagging``.
        beam_size: number of hypotheses kept.

    Attributes:
        beam: of the sentence that is being read, or was read last.
        final: how many labels are final.
        has_ended: whether no more words of it come.

    Raises:
        ValueError: a model that needs whole sentences, or a search that does; says what to do.
    """

    def __init__(self, model: nn.Module, task: FairseqTask, beam_size: int = 5):
        if not hasattr(model.encoder, "begin_reading"):
            raise ValueError(
                f"{type(model.encoder).__name__} reads whole sentences: labels are written as words arrive "
                "with --arch fixed_attention_lstm and --encoder-direction forward or word"
            )
        if task.cfg.search != "beam":
            raise ValueError(f"--search {task.cfg.search} needs whole sentences: use --search beam")
        model.eval()
        self.model, self.task = model, task
        self.beam_size = check_beam_size(beam_size)
        self._device = next(model.parameters()).device
        self._space = scored_space(task.cfg, task.search_space).to(self._device)
        self._decoder = step_decoder(model)
        self._begin()

    def _begin(self):
        self._reading = self.model.encoder.begin_reading(sentences=1)
        self._states = next(self.model.parameters()).new_zeros(0, 1, self.model.encoder.output_units)
        state = self._decoder.init_state({"states": self._states})
        self.beam = first_beam(self._decoder, state, 1, self._space)
        self.has_ended = False

    def add(self, word: str) -> Labels:
        """Read a word; the first one after ``finish`` begins a new sentence.

        Raises:
            ValueError: text that is not one word.
        """
        if word.split() != [word]:
            raise ValueError(f"{word!r} is not one word: add words one by one")
        self.read(torch.tensor([self.task.source_dictionary.index(word)]))
        return self.labels

    def finish(self) -> Labels:
        """No more words come: all labels, which are final."""
        self.read(torch.empty(0, dtype=torch.long), last=True)
        return self.labels

    @torch.no_grad()
    def read(self, words: Tensor, last: bool = False) -> None:
        """Read ids ``[n]`` of words, n >= 0; ``last`` says that the sentence ends with them."""
        if self.has_ended:
            self._begin()
        words = words.to(self._device)[None]
        states, self._reading = self.model.encoder.read_on(self._reading, words, last)
        self._states = torch.cat([self._states, states])
        for _ in states:
            state = self.beam.state._replace(encoder_out={"states": self._states})
            self.beam = next_beam(self._decoder, self.beam._replace(state=state), self.beam_size, self._space)
        self.has_ended = last

    @property
    def final(self) -> int:
        """How many labels are final."""
        found = self.beam.hypotheses
        return found.symbols.size(2) if self.has_ended else int(found.agreed[0])

    @property
    def labels(self) -> Labels:
        """What is known so far."""
        best = self.beam.hypotheses.symbols[0, 0].tolist()
        return Labels([self.task.target_dictionary[label] for label in best], self.final)


class FinalLabels:
    """Prints the labels of a tagger that have become final, after ``F-`` and the number of a line."""

    def __init__(self, tagger: IncrementalTagger):
        self._tagger = tagger
        self._printed = self._line = 0

    def print(self) -> None:
        """Those that have not been printed yet, of the sentence that is being read or was read last."""
        labels, final = self._tagger.labels
        print(f"F-{self._line}\t{' '.join(labels[self._printed : final])}")
        self._printed, self._line = (0 if self._tagger.has_ended else final), self._line + 1

    def end_of_input(self) -> None:
        """The sentence ends, too, if something of it is left to be printed."""
        if not self._tagger.has_ended and len(self._tagger.finish().labels) > self._printed:
            self.print()


class IncrementalGenerator:
    """An ``IncrementalTagger`` behind fairseq's interface of a generator, for ``fairseq-interactive``.

    A line that is typed in holds one word or more of the sentence; an empty line ends it, and so does the end
    of the input, when fairseq gives up its generator. The n-best lists are those of the sentence so far.
    Labels that a line has made final are printed after ``F-`` and its number: of one sentence, these lines
    together are its labels, of which none is revised.
    """

    symbols_to_strip_from_output = frozenset()  # there is no end-of-sentence label

    def __init__(self, models: list[nn.Module], task: FairseqTask, beam_size: int):
        self.tagger = IncrementalTagger(only_model("tagging", models, None, None), task, beam_size)
        self._final = FinalLabels(self.tagger)
        weakref.finalize(self, self._final.end_of_input)

    def generate(
        self,
        models: list[nn.Module],
        sample: dict,
        prefix_tokens: Tensor | None = None,
        constraints: Tensor | None = None,
    ) -> list[list[dict]]:
        """Up to ``beam_size`` hypotheses for the sentence so far, best first, as dictionaries in a list.

        Raises:
            ValueError: more than one model, prefixes or constraints.
        """
        only_model("tagging", models, prefix_tokens, constraints)
        (length,) = sample["net_input"]["src_lengths"].tolist()
        self.tagger.read(sample["net_input"]["src_tokens"][0, :length], last=length == 0)
        self._final.print()
        found = self.tagger.beam.hypotheses
        # fairseq-interactive divides the scores of its hypotheses in place: the beam keeps its own.
        steps = found.symbols.size(2)
        return [n_best(steps, found.symbols[0], found.scores[0], found.step_scores[0].clone())]
