"""What hypothesis gives to a parser: any bytes, and valid ones of which a part is others."""

from hypothesis import strategies as st

from benchmarks.parsers import Parser


def inputs_of(parser: Parser) -> st.SearchStrategy[bytes]:
    """A strategy of inputs that are refused at the first byte, at the last, or not at all."""
    places = st.tuples(st.integers(0, 200), st.integers(0, 20))
    changed = st.builds(
        lambda seed, place, other: seed[: place[0]] + other + seed[sum(place) :],
        st.sampled_from(parser.seeds),
        places,
        st.binary(max_size=20),
    )
    return st.binary() | changed
