// Ends what avx512_begin.h began.
#pragma GCC pop_options
#pragma GCC diagnostic pop
