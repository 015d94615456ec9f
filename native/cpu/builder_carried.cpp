// The builder's instructions about what a step brings for each row.
#include <memory>
#include <utility>

#include "cpu/builder.h"
#include "cpu/builder_checks.h"
#include "cpu/carried.h"

namespace tokamak::cpu {
namespace {

constexpr int64_t kMostGates = 1 << 16;

}  // namespace

void Builder::gate(const std::string& node, const std::vector<std::pair<int64_t, int64_t>>& groups,
                   const Operand& x, const Operand& out) {
  checked(node, x);
  checked(node, out);
  std::vector<Gate::Group> made;
  int64_t width = 0;
  for (const auto& [index, columns] : groups) {
    need(index >= 0 && index < kMostGates && columns >= 1 && columns <= x.width - width, node,
         "groups of columns do not fit the input");
    made.push_back({index, columns});
    width += columns;
    program_.need_gates(index + 1);
  }
  need(width == x.width && x.width == out.width && x.lead == Lead::rows && out.lead == x.lead, node,
       "gate keeps the shape");
  program_.add(std::make_unique<Gate>(x, std::move(made), out), node, "gate", "gate");
}

void Builder::steer(const std::string& node, int64_t gate, int64_t direction, const Operand& x,
                    const Operand& out) {
  checked(node, x);
  checked(node, out);
  const auto values = program_.weights().vector(direction);
  need(gate >= 0 && gate < kMostGates && x.width == out.width && x.lead == Lead::rows &&
           out.lead == x.lead && static_cast<int64_t>(values.size()) == x.width,
       node, "a direction has one number per column");
  program_.need_gates(gate + 1);
  program_.add(std::make_unique<Steer>(x, gate, values, out), node, "steer", "steer");
}

void Builder::replace_rows(const std::string& node, const Operand& x, const Operand& out) {
  checked(node, x);
  checked(node, out);
  need(x.width == out.width && x.lead == Lead::rows && out.lead == x.lead, node,
       "rows are replaced by rows of their width");
  program_.take_given(x.width);
  program_.add(std::make_unique<ReplaceRows>(x, out), node, "replace_rows", "replace_rows");
}

}  // namespace tokamak::cpu
