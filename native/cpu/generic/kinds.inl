// What a format is to the kernels of one translation unit: its packed struct, how many columns that
// holds, which kernel family runs it, its block in the file.

// `own`: the packed struct brings its step, its unpacked form and its row (codes256.inl,
// codes32.inl).
enum class Family { floats, groups32, groups256, ternary, own };

// What the matrix product depends on: formats that share it share the compiled kernels.
template <class P, Family F, int Cols>
struct Form {
  using Packed = P;
  static constexpr Family kFamily = F;
  static constexpr int kCols = Cols;
};

template <quant::Format Name, class P, Family F, int Cols, class B, int PerBlock = 1>
struct Kind : Form<P, F, Cols> {
  using FormOf = Form<P, F, Cols>;
  using Block = B;                            // as in the file
  static constexpr int kPerBlock = PerBlock;  // packed structs of a block
  static constexpr quant::Format kFormat = Name;
};

template <class... Kinds>
struct KindList {};

// Calls f with the kind of a run-time format. The formats are checked where matrices are made.
template <class F, class First, class... Rest>
inline auto with_kind_of(KindList<First, Rest...> /*kinds*/, quant::Format format, F f) {
  if constexpr (sizeof...(Rest) > 0) {
    if (format != First::kFormat) return with_kind_of(KindList<Rest...>{}, format, f);
  }
  return f(First{});
}

// A register tile: P panels x N tokens (matmul.inl).
template <int P, int N>
struct Tile;
