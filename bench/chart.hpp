#pragma once
// Charts: the report's pictures as SVG, in one style. A series (a library) has the same colour in every chart.
//
// Everything is laid out by estimated text widths, so that no label is cut and no two of a chart overlap. Axes are
// logarithmic: what is compared here differs by orders of magnitude.
//
// Thread-safety: plain functions of plain values.

#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "harness.hpp"

namespace fulmar::bench {

// Horizontal bars in groups, one group below the other.
struct BarChart {
  struct Bar {
    std::string series;
    double value = 0;
    double whisker = std::numeric_limits<double>::quiet_NaN();  // the worst case, where there is one
    std::string label{};                                        // beside the bar
  };
  struct Group {
    std::string label;
    std::vector<Bar> bars;
  };

  std::string title;
  std::string axis;  // what the values are, and which end is better
  std::vector<Group> groups;
};
std::string to_svg(const BarChart& chart);

// Latency over percentile, one panel per situation: 90 % of the values, 99 %, 99.9 % ... each take the same width, so that
// the worst cases are as visible as the usual ones.
struct PercentileChart {
  struct Curve {
    std::string series;
    Distribution distribution;  // ns
    bool dashed = false;        // a variant of a series
  };
  struct Panel {
    std::string label;
    std::vector<Curve> curves;
  };

  std::string title;
  std::string note{};  // what dashed means, what the line of the goal is
  std::vector<Panel> panels;
  double goal_ns = 0;  // a line across every panel, when > 0
};
std::string to_svg(const PercentileChart& chart);

// "12 ns", "3.4 µs", "1.2 ms", "5 s": three significant digits.
std::string duration_text(double ns);

}  // namespace fulmar::bench
