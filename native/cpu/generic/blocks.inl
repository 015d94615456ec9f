// Formats of the first translation unit: floats, the older 32-column formats, K formats, ternary.
using Kinds =
    KindList<Kind<quant::Format::f16, PackedF16, Family::floats, 1, uint16_t>,
             Kind<quant::Format::bf16, PackedBF16, Family::floats, 1, uint16_t>,
             Kind<quant::Format::q4_0, PackedQ4_0, Family::groups32, 32, quant::BlockQ4_0>,
             Kind<quant::Format::q5_0, PackedQ5_0, Family::groups32, 32, quant::BlockQ5_0>,
             Kind<quant::Format::q8_0, PackedQ8_0, Family::groups32, 32, quant::BlockQ8_0>,
             Kind<quant::Format::q4_k, PackedQ4_K, Family::groups256, 256, quant::BlockQ4_K>,
             Kind<quant::Format::q5_k, PackedQ5_K, Family::groups256, 256, quant::BlockQ5_K>,
             Kind<quant::Format::q6_k, PackedQ6_K, Family::groups256, 256, quant::BlockQ6_K>,
             Kind<quant::Format::tq2_0, PackedTQ2_0, Family::ternary, 256, quant::BlockTQ2_0>,
             Kind<quant::Format::tq1_0, PackedTQ2_0, Family::ternary, 256, quant::BlockTQ1_0>,
             Kind<quant::Format::f32, PackedF32, Family::floats, 1, float>>;
