from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shared.messaging.relay import waves

ROWS = st.lists(st.sampled_from("abc")).map(
    lambda names: [{"id": place, "entity_id": name} for place, name in enumerate(names)]
)


@given(ROWS)
def test_each_wave_has_one_event_of_an_entity_and_the_next_wave_its_next_one(rows: list[dict[str, Any]]) -> None:
    found = waves(rows)
    for wave in found:
        entities = [row["entity_id"] for row in wave]
        assert len(set(entities)) == len(entities)
        assert wave == sorted(wave, key=lambda row: row["id"])
    for entity in "abc":
        of_it = [row for row in rows if row["entity_id"] == entity]
        assert [row for wave in found for row in wave if row["entity_id"] == entity] == of_it
        assert all(row in wave for row, wave in zip(of_it, found, strict=False)), "as early as may be"
