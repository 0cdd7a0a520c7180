// Deformable attention as one operator of OpenVINO's CPU plugin.
//
// A query's sample is a bilinear mean of four cells of a level, and an attention the weighted sum of its samples.
// Inputs, sizes and where a query samples are told in deformable.py; what is outside a level counts as zero, as in
// GridSample with padding_mode "zeros" and align_corners 0. compiled_operator.py compiles this.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include <openvino/core/extension.hpp>
#include <openvino/core/op_extension.hpp>
#include <openvino/op/op.hpp>
#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>

namespace {

constexpr int kLanes = 16;           // floats that are summed at once; GCC splits them where registers are shorter
constexpr int kMostSamples = 128;    // of a query and head
constexpr int kQueriesAtLeast = 16;  // that a thread takes at once
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float))));

struct Sizes {
    int heads, head_dim, levels, points, tokens, queries;
    int samples() const { return levels * points; }
};

struct Inputs {
    const float *value, *weights, *offsets, *reference, *extent;  // extent: null for reference points
};

// What a sample's level tells it, one entry for each sample of a head.
struct Samples {
    float columns[kMostSamples], lines[kMostSamples];
    int level[kMostSamples], first_token[kMostSamples];
};

// Where the four cells around each sample of a query and head are, and how much they weigh.
struct Corners {
    int token[4][kMostSamples];
    float weight[4][kMostSamples];
};

inline __attribute__((always_inline)) void find_corners(
    const Samples& samples, int count, const float* x, const float* y, const float* weights, Corners& corners) {
    for (int n = 0; n < count; ++n) {
        const float columns = samples.columns[n], lines = samples.lines[n];
        // Far outside, a sample counts as little as just outside, and its cell must fit an int. A NaN becomes -2.
        const float place_x = std::min(std::max(-2.0f, x[n]), columns + 1.0f);
        const float place_y = std::min(std::max(-2.0f, y[n]), lines + 1.0f);
        const float left = std::floor(place_x), top = std::floor(place_y);
        const float right_share = place_x - left, bottom_share = place_y - top;
        const float in_left = (left >= 0.0f) & (left < columns) ? 1.0f - right_share : 0.0f;
        const float in_right = (left >= -1.0f) & (left < columns - 1.0f) ? right_share : 0.0f;
        const float in_top = (top >= 0.0f) & (top < lines) ? (1.0f - bottom_share) * weights[n] : 0.0f;
        const float in_bottom = (top >= -1.0f) & (top < lines - 1.0f) ? bottom_share * weights[n] : 0.0f;
        const int x0 = static_cast<int>(std::min(std::max(left, 0.0f), columns - 1.0f));
        const int x1 = static_cast<int>(std::min(std::max(left + 1.0f, 0.0f), columns - 1.0f));
        const int y0 = static_cast<int>(std::min(std::max(top, 0.0f), lines - 1.0f));
        const int y1 = static_cast<int>(std::min(std::max(top + 1.0f, 0.0f), lines - 1.0f));
        const int width = static_cast<int>(columns), first = samples.first_token[n];
        corners.token[0][n] = first + y0 * width + x0;
        corners.token[1][n] = first + y0 * width + x1;
        corners.token[2][n] = first + y1 * width + x0;
        corners.token[3][n] = first + y1 * width + x1;
        corners.weight[0][n] = in_top * in_left;
        corners.weight[1][n] = in_top * in_right;
        corners.weight[2][n] = in_bottom * in_left;
        corners.weight[3][n] = in_bottom * in_right;
    }
}

// The weighted sum of rows of `head` (a picture's value, from the head's first number on), `Blocks` * kLanes wide.
template <int Blocks>
inline __attribute__((always_inline)) void sum_rows(
    const Corners& corners, int count, const float* head, size_t stride, float* out) {
    Lanes sums[Blocks] = {};
    for (int n = 0; n < count; ++n) {
        for (int corner = 0; corner < 4; ++corner) {
            const float* row = head + corners.token[corner][n] * stride;
            const float weight = corners.weight[corner][n];
            for (int block = 0; block < Blocks; ++block) {
                Lanes cells;
                std::memcpy(&cells, row + block * kLanes, sizeof(cells));
                sums[block] += weight * cells;
            }
        }
    }
    std::memcpy(out, sums, sizeof(sums));
}

inline __attribute__((always_inline)) void sum_rows_of_any_width(
    const Corners& corners, int count, const float* head, size_t stride, int width, float* out) {
    std::fill(out, out + width, 0.0f);
    for (int n = 0; n < count; ++n) {
        for (int corner = 0; corner < 4; ++corner) {
            const float* row = head + corners.token[corner][n] * stride;
            for (int i = 0; i < width; ++i) {
                out[i] += corners.weight[corner][n] * row[i];
            }
        }
    }
}

// Queries [begin, end) of all pictures, B * Q in number. Compiled for three generations of processors.
__attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"))) void attend(
    const Inputs& in, const Sizes& sizes, const Samples& samples, size_t begin, size_t end, float* out) {
    const int count = sizes.samples(), levels = sizes.levels;
    const size_t stride = static_cast<size_t>(sizes.heads) * sizes.head_dim;
    float center_x[kMostSamples], center_y[kMostSamples], scale_x[kMostSamples], scale_y[kMostSamples];
    float x[kMostSamples], y[kMostSamples];
    Corners corners;
    for (size_t query = begin; query < end; ++query) {
        const float* reference = in.reference + query * 2 * levels;
        const float* extent = in.extent ? in.extent + query * 2 * levels : nullptr;
        for (int n = 0; n < count; ++n) {
            const int level = samples.level[n];
            center_x[n] = reference[level] * samples.columns[n] - 0.5f;
            center_y[n] = reference[levels + level] * samples.lines[n] - 0.5f;
            scale_x[n] = extent ? extent[level] * samples.columns[n] * (0.5f / sizes.points) : 1.0f;
            scale_y[n] = extent ? extent[levels + level] * samples.lines[n] * (0.5f / sizes.points) : 1.0f;
        }
        const float* value = in.value + query / sizes.queries * sizes.tokens * stride;
        for (int head = 0; head < sizes.heads; ++head) {
            const float* offset_x = in.offsets + (query * 2 * sizes.heads + head) * count;
            const float* offset_y = offset_x + sizes.heads * count;
            for (int n = 0; n < count; ++n) {
                x[n] = offset_x[n] * scale_x[n] + center_x[n];
                y[n] = offset_y[n] * scale_y[n] + center_y[n];
            }
            find_corners(samples, count, x, y, in.weights + (query * sizes.heads + head) * count, corners);
            const float* values = value + head * sizes.head_dim;
            float* sums = out + query * stride + head * sizes.head_dim;
            switch (sizes.head_dim) {
            case 16: sum_rows<1>(corners, count, values, stride, sums); break;
            case 32: sum_rows<2>(corners, count, values, stride, sums); break;
            default: sum_rows_of_any_width(corners, count, values, stride, sizes.head_dim, sums);
            }
        }
    }
}

Samples lay_out_samples(const float* cells, const Sizes& sizes) {
    Samples samples;
    int first_token = 0;
    for (int level = 0, n = 0; level < sizes.levels; ++level) {
        const float columns = cells[level], lines = cells[sizes.levels + level];
        for (int point = 0; point < sizes.points; ++point, ++n) {
            samples.columns[n] = columns;
            samples.lines[n] = lines;
            samples.level[n] = level;
            samples.first_token[n] = first_token;
        }
        first_token += static_cast<int>(columns) * static_cast<int>(lines);
    }
    OPENVINO_ASSERT(first_token == sizes.tokens, "levels have ", first_token, " cells, the value ", sizes.tokens);
    return samples;
}

class DeformableAttention : public ov::op::Op {
public:
    OPENVINO_OP("DeformableAttention", "groundingdino");

    DeformableAttention() = default;
    DeformableAttention(const ov::OutputVector& inputs, int64_t levels, int64_t points)
        : Op(inputs), m_levels(levels), m_points(points) {
        constructor_validate_and_infer_types();
    }

    void validate_and_infer_types() override {
        NODE_VALIDATION_CHECK(this, get_input_size() == 5 || get_input_size() == 6, "takes five or six inputs");
        for (size_t i = 0; i < get_input_size(); ++i) {
            NODE_VALIDATION_CHECK(this, get_input_element_type(i) == ov::element::f32, "input ", i, " is not f32");
        }
        NODE_VALIDATION_CHECK(this, m_levels * m_points <= kMostSamples, "more than ", kMostSamples, " samples");
        const auto value = get_input_partial_shape(0), offsets = get_input_partial_shape(2);
        NODE_VALIDATION_CHECK(this, value[2].is_static() && value[3].is_static(), "heads are of any size");
        set_output_type(0, ov::element::f32, {offsets[0], offsets[1], value[2] * value[3]});
    }

    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override {
        return std::make_shared<DeformableAttention>(inputs, m_levels, m_points);
    }

    bool visit_attributes(ov::AttributeVisitor& visitor) override {
        visitor.on_attribute("levels", m_levels);
        visitor.on_attribute("points", m_points);
        return true;
    }

    bool has_evaluate() const override { return true; }

    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override {
        const auto value = inputs[0].get_shape(), offsets = inputs[2].get_shape();
        const Sizes sizes{int(value[2]), int(value[3]), int(m_levels), int(m_points), int(value[1]), int(offsets[1])};
        const size_t queries_of_all = offsets[0] * offsets[1];
        for (size_t index = 3; index < inputs.size(); index += 2) {  // reference and extent
            OPENVINO_ASSERT(inputs[index].get_size() == queries_of_all * 2 * m_levels, "input ", index, " has another size");
        }
        outputs[0].set_shape({offsets[0], offsets[1], value[2] * value[3]});
        const auto data = [&](size_t index) { return inputs[index].data<const float>(); };
        const Inputs in{data(0), data(1), data(2), data(3), inputs.size() == 6 ? data(5) : nullptr};
        const Samples samples = lay_out_samples(data(4), sizes);
        float* out = outputs[0].data<float>();
        // Within the plugin's own threads: as many as the inference has.
        const tbb::blocked_range<size_t> queries(0, queries_of_all, kQueriesAtLeast);
        tbb::parallel_for(queries, [&](const tbb::blocked_range<size_t>& some) {
            attend(in, sizes, samples, some.begin(), some.end(), out);
        });
        return true;
    }

private:
    int64_t m_levels = 0, m_points = 0;
};

}  // namespace

OPENVINO_CREATE_EXTENSIONS(std::vector<ov::Extension::Ptr>({std::make_shared<ov::OpExtension<DeformableAttention>>()}));
