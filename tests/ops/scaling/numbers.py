"""Any numbers that a broker could report."""

from __future__ import annotations

from hypothesis import strategies as st

ANY_NUMBER = st.one_of(
    st.none(),
    st.floats(),
    st.floats(0, 1e6),
    st.integers(-(10**400), 10**400),
    st.integers(0, 100_000),
)
