#include "chart.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <utility>

namespace fulmar::bench {
namespace {

constexpr double width = 960;
constexpr double margin = 24;
constexpr double font_size = 13;
constexpr const char* ink = "#1f2933";
constexpr const char* faint = "#6b7785";
constexpr const char* grid = "#e3e7ec";

// Okabe and Ito's palette: told apart by colour-blind readers too.
constexpr std::array<std::pair<std::string_view, const char*>, 14> colours{{{"fulmar", "#0072b2"},
                                                                            {"libmosquitto", "#e69f00"},
                                                                            {"paho-c", "#009e73"},
                                                                            {"paho-cpp", "#56b4e9"},
                                                                            {"paho-python", "#cc79a7"},
                                                                            {"mqtt.js", "#d55e00"},
                                                                            {"eventfd", "#4d4d4d"},
                                                                            {"empty call", "#a0a0a0"},
                                                                            {"bare copy", "#7a7a7a"},
                                                                            {"fulmar postgresql", "#56b4e9"},
                                                                            {"beanstalkd", "#e69f00"},
                                                                            {"Redis", "#d55e00"},
                                                                            {"PostgreSQL", "#009e73"},
                                                                            {"bare file", "#4d4d4d"}}};

const char* colour_of(std::string_view series) {
  for (const auto& [name, colour] : colours) {
    if (name == series) return colour;
  }
  return "#999999";
}

std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&': result += "&amp;"; break;
      case '<': result += "&lt;"; break;
      case '>': result += "&gt;"; break;
      case '"': result += "&quot;"; break;
      default: result += c;
    }
  }
  return result;
}

// Generous for a sans-serif face, so that what is laid out by it fits.
double text_width(std::string_view text, double size = font_size) {
  const auto letters =
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
  return static_cast<double>(letters) * size * 0.62;
}

class Svg {
 public:
  explicit Svg(double height) : height_(height) {}

  enum class Anchor : std::uint8_t { start, middle, end };
  struct Style {
    double size = font_size;
    const char* colour = ink;
    Anchor anchor = Anchor::start;
    bool bold = false;
  };
  void text(double x, double y, std::string_view words, const Style& style) {
    constexpr std::array<const char*, 3> anchors{"start", "middle", "end"};
    body_ +=
        fmt::format(R"(<text x="{:.1f}" y="{:.1f}" font-size="{:g}" fill="{}" text-anchor="{}"{}>{}</text>)"
                    "\n",
                    x, y, style.size, style.colour, anchors[static_cast<std::size_t>(style.anchor)],
                    style.bold ? " font-weight=\"bold\"" : "", escaped(words));
  }
  void line(double x1, double y1, double x2, double y2, const char* colour, double thickness = 1,
            std::string_view dash = {}) {
    body_ += fmt::format(
        R"(<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" stroke="{}" stroke-width="{:g}"{}/>)"
        "\n",
        x1, y1, x2, y2, colour, thickness, dashes(dash));
  }
  void bar(double x, double y, double w, double h, const char* colour) {
    body_ += fmt::format(R"(<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="1.5" fill="{}"/>)"
                         "\n",
                         x, y, std::max(w, 1.0), h, colour);
  }
  void path(const std::vector<std::pair<double, double>>& points, const char* colour, double thickness,
            std::string_view dash) {
    std::string text;
    for (const auto& [x, y] : points) text += fmt::format("{}{:.1f},{:.1f}", text.empty() ? "" : " ", x, y);
    body_ += fmt::format(
        R"(<polyline points="{}" fill="none" stroke="{}" stroke-width="{:g}" stroke-linejoin="round"{}/>)"
        "\n",
        text, colour, thickness, dashes(dash));
  }

  std::string finish() const {
    return fmt::format(
        R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0:g} {1:.0f}" width="{0:g}" height="{1:.0f}")"
        R"( font-family="'DejaVu Sans', Verdana, Helvetica, Arial, sans-serif">)"
        "\n"
        R"(<rect width="{0:g}" height="{1:.0f}" fill="#ffffff"/>)"
        "\n{2}</svg>\n",
        width, height_, body_);
  }

 private:
  static std::string dashes(std::string_view dash) {
    return dash.empty() ? "" : fmt::format(R"( stroke-dasharray="{}")", dash);
  }
  double height_;
  std::string body_;
};

// From the power of ten below the values to a little above them.
struct LogScale {
  double low = 0;  // exponents; `low` is whole
  double high = 1;
  double from = 0;  // pixels
  double to = 1;

  static LogScale around(double min, double max, double from, double to) {
    const double low = std::floor(std::log10(min));
    const double high = std::max(low + 1, std::log10(max) + 0.02);
    return {low, high, from, to};
  }
  double at(double value) const {
    const double exponent = std::clamp(std::log10(std::max(value, 1e-300)), low, high);
    return from + (exponent - low) / (high - low) * (to - from);
  }
};

std::string power_text(double exponent) {
  constexpr std::array<std::pair<double, const char*>, 4> units{{{9, "G"}, {6, "M"}, {3, "k"}, {0, ""}}};
  for (const auto& [power, unit] : units) {
    if (exponent >= power)
      return fmt::format("{:g}{}{}", std::pow(10, exponent - power), *unit ? " " : "", unit);
  }
  return fmt::format("{:g}", std::pow(10, exponent));
}

// The names of the series in the order in which they first come.
template <typename Visit>
std::vector<std::string> series_of(Visit&& visit) {
  std::vector<std::string> names;
  visit([&](const std::string& name) {
    if (std::ranges::find(names, name) == names.end()) names.push_back(name);
  });
  return names;
}

// One line, or as many as it takes; returns the y below it.
double legend(Svg& svg, const std::vector<std::string>& names, double y) {
  double x = margin;
  for (const auto& name : names) {
    const double needed = 18 + text_width(name) + 18;
    if (x + needed > width - margin && x > margin) {
      x = margin;
      y += 20;
    }
    svg.bar(x, y - 10, 12, 12, colour_of(name));
    svg.text(x + 18, y, name, {.bold = name == "fulmar"});
    x += needed;
  }
  return y + 14;
}

constexpr double title_height = 34;

}  // namespace

std::string duration_text(double ns) {
  constexpr std::array<std::pair<double, const char*>, 4> units{
      {{1e9, "s"}, {1e6, "ms"}, {1e3, "µs"}, {1, "ns"}}};
  for (const auto& [unit, name] : units) {
    if (ns >= unit * 0.9995 || unit == 1) return fmt::format("{:.3g} {}", ns / unit, name);
  }
  return {};
}

std::string to_svg(const BarChart& chart) {
  constexpr double bar_height = 15;
  constexpr double bar_gap = 3;
  constexpr double group_gap = 16;

  double label_width = 0;
  double value_width = 0;
  double min = std::numeric_limits<double>::max();
  double max = 0;
  double bars_height = 0;
  for (const auto& group : chart.groups) {
    label_width = std::max(label_width, text_width(group.label));
    bars_height += static_cast<double>(group.bars.size()) * (bar_height + bar_gap) + group_gap;
    for (const auto& bar : group.bars) {
      value_width = std::max(value_width, text_width(bar.label, 12));
      if (bar.value <= 0) continue;
      min = std::min(min, bar.value);
      max = std::max({max, bar.value, std::isnan(bar.whisker) ? 0 : bar.whisker});
    }
  }
  if (max == 0) min = max = 1;
  const auto names = series_of([&](auto&& take) {
    for (const auto& group : chart.groups) {
      for (const auto& bar : group.bars) take(bar.series);
    }
  });

  Svg measure(0);  // the legend's height
  const double top = legend(measure, names, title_height + 24) + 6;
  const double height = top + bars_height + 46;
  const double left = margin + label_width + 12;
  const double right = width - margin - value_width - 8;
  // A bar's length begins a little below the smallest value, so that the smallest can be seen as well.
  auto scale = LogScale::around(min * 0.8, max, left, right);

  Svg svg(height);
  svg.text(margin, title_height, chart.title, {.size = 18, .bold = true});
  legend(svg, names, title_height + 24);
  const double bottom = top + bars_height - group_gap + 6;
  for (double exponent = scale.low; exponent <= scale.high; ++exponent) {
    const double x = scale.at(std::pow(10, exponent));
    svg.line(x, top - 4, x, bottom, grid);
    svg.text(x, bottom + 16, power_text(exponent),
             {.size = 12, .colour = faint, .anchor = Svg::Anchor::middle});
  }
  svg.text((left + right) / 2, bottom + 36, chart.axis,
           {.size = 12, .colour = faint, .anchor = Svg::Anchor::middle});
  double y = top;
  for (const auto& group : chart.groups) {
    const double group_height = static_cast<double>(group.bars.size()) * (bar_height + bar_gap) - bar_gap;
    svg.text(left - 12, y + group_height / 2 + 4.5, group.label, {.anchor = Svg::Anchor::end});
    for (const auto& bar : group.bars) {
      const double end = bar.value > 0 ? scale.at(bar.value) : left;
      double label_at = end;
      if (bar.value > 0) svg.bar(left, y, end - left, bar_height, colour_of(bar.series));
      if (!std::isnan(bar.whisker) && bar.whisker > bar.value) {
        const double worst = scale.at(bar.whisker);
        const double middle = y + bar_height / 2;
        svg.line(end, middle, worst, middle, colour_of(bar.series), 1.5);
        svg.line(worst, y + 3, worst, y + bar_height - 3, colour_of(bar.series), 1.5);
        label_at = worst;
      }
      svg.text(label_at + 6, y + bar_height - 3, bar.label, {.size = 12, .bold = bar.series == "fulmar"});
      y += bar_height + bar_gap;
    }
    y += group_gap - bar_gap + bar_gap;
  }
  return svg.finish();
}

namespace {

// The horizontal axis counts nines: 0 % is 0, 90 % is 1, 99 % is 2.
double total_of(const Distribution& distribution) {
  double total = 0;
  for (const auto& [bound, count] : distribution) total += static_cast<double>(count);
  return total;
}

void draw_curve(Svg& svg, const PercentileChart::Curve& curve, double left, double right,
                const LogScale& scale, double nines_max) {
  const double total = total_of(curve.distribution);
  std::vector<std::pair<double, double>> points;
  double seen = 0;
  for (const auto& [bound, count] : curve.distribution) {
    // A curve goes as far as its values do: the last one stands for the fraction above all but itself.
    const auto nines = [&](double below) {
      return std::min(nines_max, -std::log10(std::max(1 - below / total, 1e-9)));
    };
    const double y = scale.at(bound);
    points.emplace_back(left + nines(seen) / nines_max * (right - left), y);
    seen += static_cast<double>(count);
    const double end = seen < total ? nines(seen) : std::min(nines_max, std::log10(total));
    points.emplace_back(
        left + std::max(end, nines(seen - static_cast<double>(count))) / nines_max * (right - left), y);
    if (nines(seen) >= nines_max) break;
  }
  const bool bold = curve.series == "fulmar";
  svg.path(points, colour_of(curve.series), bold ? 2.6 : 1.6, curve.dashed ? "5 3" : "");
}

}  // namespace

std::string to_svg(const PercentileChart& chart) {
  constexpr double panel_height = 210;
  constexpr double panel_gap = 58;
  constexpr std::size_t columns = 2;
  constexpr double axis_width = 58;
  constexpr double panel_width = (width - 2 * margin - columns * axis_width - 20) / columns;

  double min = std::numeric_limits<double>::max();
  double max = 0;
  double values_max = 1;
  for (const auto& panel : chart.panels) {
    for (const auto& curve : panel.curves) {
      if (curve.distribution.empty()) continue;
      min = std::min(min, std::max(curve.distribution.front().first, 1.0));
      max = std::max(max, curve.distribution.back().first);
      values_max = std::max(values_max, total_of(curve.distribution));
    }
  }
  if (max == 0) min = max = 1;
  // No further than the values tell: a thousand of them say nothing of 99.99 %.
  constexpr std::array<const char*, 5> percentiles{"0", "90 %", "99 %", "99.9 %", "99.99 %"};
  const double nines_max = std::clamp(std::floor(std::log10(values_max)), 2.0, percentiles.size() - 1.0);
  const auto names = series_of([&](auto&& take) {
    for (const auto& panel : chart.panels) {
      for (const auto& curve : panel.curves) take(curve.series);
    }
  });

  Svg measure(0);
  const double note_height = chart.note.empty() ? 0 : 18;
  const double top = legend(measure, names, title_height + 24 + note_height) + 22;
  const auto rows = static_cast<double>((chart.panels.size() + columns - 1) / columns);
  Svg svg(top + rows * (panel_height + panel_gap) - panel_gap + 32);
  svg.text(margin, title_height, chart.title, {.size = 18, .bold = true});
  if (!chart.note.empty()) svg.text(margin, title_height + 20, chart.note, {.size = 12, .colour = faint});
  legend(svg, names, title_height + 24 + note_height);

  for (std::size_t i = 0; i < chart.panels.size(); ++i) {
    const auto& panel = chart.panels[i];
    const double left =
        margin + axis_width + static_cast<double>(i % columns) * (panel_width + axis_width + 20);
    const double right = left + panel_width;
    const double y = top + static_cast<double>(i / columns) * (panel_height + panel_gap);
    const auto scale = LogScale::around(min, max, y + panel_height, y);
    svg.text(left, y - 7, panel.label, {.bold = true});
    for (double exponent = scale.low; exponent <= scale.high; ++exponent) {
      const double at = scale.at(std::pow(10, exponent));
      svg.line(left, at, right, at, grid);
      svg.text(left - 6, at + 4, duration_text(std::pow(10, exponent)),
               {.size = 11, .colour = faint, .anchor = Svg::Anchor::end});
    }
    const auto last = static_cast<std::size_t>(nines_max);
    for (std::size_t nines = 0; nines <= last; ++nines) {
      const double x = left + static_cast<double>(nines) / nines_max * panel_width;
      svg.line(x, y, x, y + panel_height, grid);
      // The outer ones turned inwards, so that they stay clear of the neighbouring panel.
      svg.text(
          x, y + panel_height + 16, percentiles[nines],
          {.size = 11, .colour = faint, .anchor = nines == last ? Svg::Anchor::end : Svg::Anchor::middle});
    }
    if (chart.goal_ns > 0) {
      const double at = scale.at(chart.goal_ns);
      svg.line(left, at, right, at, "#b3261e", 1, "2 3");
    }
    // Ours last, on top.
    for (const bool bold : {false, true}) {
      for (const auto& curve : panel.curves) {
        if ((curve.series == "fulmar") == bold && !curve.distribution.empty())
          draw_curve(svg, curve, left, right, scale, nines_max);
      }
    }
  }
  return svg.finish();
}

}  // namespace fulmar::bench
