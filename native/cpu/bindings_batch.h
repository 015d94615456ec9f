// types.Batch as a view: arrays taken from Python without conversion.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <string>

#include "base/error.h"
#include "cpu/step.h"

namespace tokamak {

namespace nb = nanobind;

using Int1 = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Int2 = nb::ndarray<const int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Float2 = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

// The argument as the array type Wanted, without conversion.
template <class Wanted>
inline Wanted array(const char* name, const char* what, nb::handle argument) {
  Wanted found;
  if (!nb::try_cast(argument, found, false)) {
    throw Error(ErrorKind::invalid_params,
                std::string(name) + " must be a contiguous array, " + what);
  }
  return found;
}

inline Int1 vector_of(nb::handle owner, const char* name) {
  return array<Int1>(name, "int32, one axis", owner.attr(name));
}

inline Int2 table_of(nb::handle owner, const char* name) {
  return array<Int2>(name, "int32, two axes", owner.attr(name));
}

template <class Array>
inline cpu::Ints span_of(const Array& a) {
  return {a.data(), a.size()};
}

// The arrays that types.Batch and types.Sources have in common.
struct RowsArrays {
  Int1 token_ids, positions, slots, starts, lengths;
  Int2 tables;

  RowsArrays() = default;
  explicit RowsArrays(nb::handle rows)
      : token_ids(vector_of(rows, "token_ids")),
        positions(vector_of(rows, "positions")),
        slots(vector_of(rows, "slots")),
        starts(vector_of(rows, "starts")),
        lengths(vector_of(rows, "lengths")),
        tables(table_of(rows, "tables")) {}

  cpu::RowsView view() const {
    return {span_of(token_ids),
            span_of(positions),
            span_of(slots),
            span_of(starts),
            span_of(lengths),
            span_of(tables),
            static_cast<int64_t>(tables.shape(1))};
  }
};

struct BatchArrays {
  RowsArrays rows, sources;
  Int1 logit_rows, cross_lengths, recent_slots, given_rows;
  Int2 cross_tables, recent_tables;
  Float2 gates, given_vectors;
  bool has_sources;

  explicit BatchArrays(nb::handle batch) : rows(batch), logit_rows(vector_of(batch, "logit_rows")) {
    if (const nb::object adapters = batch.attr("gates"); !adapters.is_none()) {
      gates = array<Float2>("gates", "float32, two axes", adapters);
    }
    const nb::object recent = batch.attr("recent");
    recent_slots = recent.is_none() ? rows.slots : vector_of(recent, "slots");
    recent_tables = recent.is_none() ? rows.tables : table_of(recent, "tables");
    if (const nb::object given = batch.attr("given"); !given.is_none()) {
      given_rows = vector_of(given, "rows");
      given_vectors = array<Float2>("given.vectors", "float32, two axes", given.attr("vectors"));
    }
    const nb::object texts = batch.attr("sources");
    has_sources = !texts.is_none();
    if (!has_sources) return;
    sources = RowsArrays(texts);
    cross_lengths = vector_of(texts, "cross_lengths");
    cross_tables = table_of(texts, "cross_tables");
  }

  cpu::BatchView view() const {
    cpu::BatchView made{rows.view(), span_of(logit_rows), has_sources, {}, {}, rows.view(), {}};
    made.recent.slots = span_of(recent_slots);
    made.recent.tables = span_of(recent_tables);
    made.recent.table_width = static_cast<int64_t>(recent_tables.shape(1));
    if (gates.is_valid()) {
      made.gates = {gates.data(), gates.size()};
      made.num_gates = static_cast<int64_t>(gates.shape(1));
    }
    if (given_vectors.is_valid()) {
      made.given_rows = span_of(given_rows);
      made.given_vectors = {given_vectors.data(), given_vectors.size()};
      made.given_width = static_cast<int64_t>(given_vectors.shape(1));
    }
    if (has_sources) {
      made.sources = sources.view();
      made.cross = {span_of(cross_lengths), span_of(cross_tables),
                    static_cast<int64_t>(cross_tables.shape(1))};
    }
    return made;
  }
};

}  // namespace tokamak
