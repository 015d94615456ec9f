#include "cpu/dispatch.h"

#include <array>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "cpu/features.h"
#include "cpu/tables.h"

namespace tokamak::cpu {
namespace {

struct Available {
  std::array<const KernelTable*, 3> tables{};
  int count = 0;

  Available() noexcept {
#ifdef TOKAMAK_X86
    if (features().avx512vnni) tables[static_cast<size_t>(count++)] = &kAvx512VnniTable;
    if (features().avx2) tables[static_cast<size_t>(count++)] = &kAvx2Table;
#endif
    tables[static_cast<size_t>(count++)] = &kScalarTable;
#ifdef TOKAMAK_EMULATE_AVX512
    if (!features().avx512vnni) tables[static_cast<size_t>(count++)] = &kAvx512VnniTable;
#endif
  }
};

const Available& available() noexcept {
  static const Available found;
  return found;
}

std::string available_names() {
  std::string names;
  for (int i = 0; i < available().count; ++i) {
    names += (i == 0 ? "" : ", ") + std::string(available().tables[static_cast<size_t>(i)]->isa);
  }
  return names;
}

const KernelTable& choose() {
  const char* forced = std::getenv("TOKAMAK_ISA");
  if (forced == nullptr || *forced == '\0') return *available().tables[0];
  return kernels_named(forced);
}

}  // namespace

const KernelTable* const* available_tables(int* count) noexcept {
  *count = available().count;
  return available().tables.data();
}

const KernelTable& kernels_named(std::string_view isa) {
  for (int i = 0; i < available().count; ++i) {
    const KernelTable* table = available().tables[static_cast<size_t>(i)];
    if (isa == table->isa) return *table;
  }
  const bool known = isa == "avx512vnni" || isa == "avx2" || isa == "scalar";
  throw Error(known ? ErrorKind::unavailable : ErrorKind::invalid_params,
              "instruction set '" + std::string(isa) + "' (TOKAMAK_ISA) is " +
                  (known ? "not available on this processor" : "unknown") +
                  "; this machine has: " + available_names());
}

const KernelTable& kernels() {
  static const KernelTable& chosen = choose();
  return chosen;
}

const VectorTable& vectors_named(const char* isa) noexcept {
#ifdef TOKAMAK_X86
  if (std::string_view(isa) == kAvx512VnniVectors.isa) return kAvx512VnniVectors;
  if (std::string_view(isa) == kAvx2Vectors.isa) return kAvx2Vectors;
#endif
  static_cast<void>(isa);
  return kScalarVectors;
}

namespace {

struct Route {
  KernelUnit unit;
  Activation activation;
};

Route route_of(quant::Format format) noexcept {
  using quant::Format;
  switch (format) {
    case Format::q4_0:
    case Format::q5_0:
    case Format::q8_0:
      return {KernelUnit::blocks, Activation::q8_32};
    case Format::q4_k:
    case Format::q5_k:
    case Format::q6_k:
    case Format::tq1_0:
    case Format::tq2_0:
      return {KernelUnit::blocks, Activation::q8_256};
    case Format::q2_k:
    case Format::q3_k:
    case Format::iq4_xs:
    case Format::iq3_s:
    case Format::iq3_xxs:
    case Format::iq1_s:
    case Format::iq1_m:
      return {KernelUnit::codes256, Activation::q8_256};
    case Format::iq2_s:
    case Format::iq2_xs:
    case Format::iq2_xxs:
      return {KernelUnit::codes256, Activation::q8_256_sums8};
    case Format::q4_1:
    case Format::q5_1:
    case Format::iq4_nl:
    case Format::mxfp4:
    case Format::nvfp4:
    case Format::q1_0:
    case Format::q2_0:
      return {KernelUnit::codes32, Activation::q8_32};
    case Format::i2_s:
    case Format::i2_s_arm:
      return {KernelUnit::codes32, Activation::q8_row};
    case Format::f32:
    case Format::f16:
    case Format::bf16:
      break;
  }
  return {KernelUnit::blocks, Activation::f32};
}

}  // namespace

Activation activation_of(quant::Format format) noexcept { return route_of(format).activation; }
KernelUnit unit_of(quant::Format format) noexcept { return route_of(format).unit; }

}  // namespace tokamak::cpu
