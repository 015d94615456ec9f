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

Activation activation_of(quant::Format format) noexcept {
  using quant::Format;
  switch (format) {
    case Format::q4_0:
    case Format::q5_0:
    case Format::q8_0:
      return Activation::q8_32;
    case Format::q4_k:
    case Format::q5_k:
    case Format::q6_k:
    case Format::tq2_0:
      return Activation::q8_256;
    case Format::f32:
    case Format::f16:
    case Format::bf16:
      break;
  }
  return Activation::f32;
}

}  // namespace tokamak::cpu
