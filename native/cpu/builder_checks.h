// What the parts of the builder check alike.
#pragma once

#include <string>

#include "base/error.h"
#include "cpu/vectors.h"

namespace tokamak::cpu {

inline void need(bool holds, const std::string& node, const std::string& what) {
  if (!holds) throw Error(ErrorKind::invalid_params, node + ": " + what);
}

// gated: activations of two inputs are known too.
inline Act act_named(const std::string& node, const std::string& name, bool gated) {
  static constexpr const char* kNames[] = {"silu", "gelu",    "gelu_erf", "relu2",
                                           "relu", "sigmoid", "softplus", "swiglu_clamped"};
  for (uint8_t i = 0; i < 8; ++i) {
    if (name == kNames[i] && (gated || i != static_cast<uint8_t>(Act::swiglu_clamped))) {
      return static_cast<Act>(i);
    }
  }
  throw Error(ErrorKind::invalid_params, node + ": activation '" + name + "' is unknown");
}

}  // namespace tokamak::cpu
