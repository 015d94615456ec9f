// Ends what avx2_begin.h began.
#pragma GCC pop_options
