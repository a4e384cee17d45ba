#include "chart.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <regex>

namespace fulmar::bench {
namespace {

struct Text {
  double x;
  double y;
  double size;
  std::string anchor;
  std::string words;
  double from() const { return anchor == "start" ? x : anchor == "end" ? x - width() : x - width() / 2; }
  double to() const { return from() + width(); }
  double width() const { return static_cast<double>(words.size()) * size * 0.55; }
};

std::vector<Text> texts_of(const std::string& svg) {
  const std::regex one(
      R"re(<text x="([-\d.]+)" y="([-\d.]+)" font-size="([\d.]+)"[^>]*text-anchor="(\w+)"[^>]*>([^<]*)<)re");
  std::vector<Text> texts;
  for (auto at = std::sregex_iterator(svg.begin(), svg.end(), one); at != std::sregex_iterator(); ++at) {
    texts.push_back({std::stod((*at)[1]), std::stod((*at)[2]), std::stod((*at)[3]), (*at)[4], (*at)[5]});
  }
  return texts;
}

double height_of(const std::string& svg) {
  std::smatch found;
  EXPECT_TRUE(std::regex_search(svg, found, std::regex(R"(viewBox="0 0 960 (\d+)\")")));
  return std::stod(found[1]);
}

// No label leaves the picture, and no two lie on each other.
void expect_readable(const std::string& svg) {
  const auto texts = texts_of(svg);
  for (const auto& text : texts) {
    EXPECT_GE(text.from(), 0) << text.words;
    EXPECT_LE(text.to(), 960) << text.words;
    EXPECT_GE(text.y, text.size) << text.words;
    EXPECT_LE(text.y, height_of(svg)) << text.words;
  }
  for (std::size_t i = 0; i < texts.size(); ++i) {
    for (std::size_t j = i + 1; j < texts.size(); ++j) {
      const auto& a = texts[i];
      const auto& b = texts[j];
      const bool apart =
          a.to() <= b.from() || b.to() <= a.from() || std::abs(a.y - b.y) >= std::min(a.size, b.size);
      EXPECT_TRUE(apart) << a.words << " lies on " << b.words;
    }
  }
}

BarChart throughput() {
  BarChart chart{.title = "Throughput <of> one & all", .axis = "messages a second", .groups = {}};
  for (const char* group : {"publish, QoS 0", "a group with quite a long name"}) {
    chart.groups.push_back(
        {group,
         {{.series = "fulmar", .value = 14'300'000, .label = "14.3 M"},
          {.series = "libmosquitto", .value = 589'000, .whisker = 900'000, .label = "589 k (max 900 k)"},
          {.series = "mqtt.js", .value = 0, .label = "not measured"}}});
  }
  return chart;
}

TEST(BarChart, has_every_label_within_the_picture_and_none_on_another) {
  const auto svg = to_svg(throughput());
  expect_readable(svg);
  for (const char* words :
       {"14.3 M", "589 k (max 900 k)", "not measured", "publish, QoS 0", "messages a second"}) {
    EXPECT_NE(svg.find(words), svg.npos) << words;
  }
  EXPECT_NE(svg.find("Throughput &lt;of&gt; one &amp; all"), svg.npos);
}

TEST(BarChart, draws_a_tenfold_value_one_decade_longer) {
  const BarChart chart{.title = "t",
                       .axis = "a",
                       .groups = {{"g",
                                   {{.series = "fulmar", .value = 100},
                                    {.series = "paho-c", .value = 1'000},
                                    {.series = "mqtt.js", .value = 10'000}}}}};
  const auto svg = to_svg(chart);
  const std::regex bar(R"re(<rect x="[\d.]+" y="[\d.]+" width="([\d.]+)" height="15)re");
  std::vector<double> widths;
  for (auto at = std::sregex_iterator(svg.begin(), svg.end(), bar); at != std::sregex_iterator(); ++at) {
    widths.push_back(std::stod((*at)[1]));
  }
  ASSERT_EQ(widths.size(), 3u);
  EXPECT_GT(widths[0], 0);
  EXPECT_NEAR(widths[1] - widths[0], widths[2] - widths[1], 0.3);
}

TEST(BarChart, of_nothing_is_still_a_picture) {
  expect_readable(to_svg(
      BarChart{.title = "nothing", .axis = "a", .groups = {{"g", {{.series = "fulmar", .label = "-"}}}}}));
}

TEST(PercentileChart, has_every_label_within_the_picture_and_none_on_another) {
  PercentileChart chart{.title = "latency", .note = "dashed: lazy", .panels = {}, .goal_ns = 1'000};
  for (const char* panel : {"up", "down", "silent", "zero window", "outbox full"}) {
    chart.panels.push_back({panel,
                            {{"fulmar", {{30, 90'000}, {400, 990}, {1'000, 10}}},
                             {"fulmar", {{30, 9'990}, {800, 10}}, true},
                             {"libmosquitto", {{4'000, 500}, {3e6, 500}}}}});
  }
  const auto svg = to_svg(chart);
  expect_readable(svg);
  EXPECT_NE(svg.find("99.9 %"), svg.npos);
  EXPECT_NE(svg.find("stroke-dasharray=\"5 3\""), svg.npos);
}

TEST(PercentileChart, steps_where_the_percentile_is_reached) {
  // 90 % at 10 ns, the rest at 1 µs: the step lies at the line of 90 %.
  const PercentileChart chart{.title = "t", .panels = {{"p", {{"fulmar", {{10, 900}, {1'000, 100}}}}}}};
  const auto svg = to_svg(chart);
  std::smatch found;
  ASSERT_TRUE(std::regex_search(
      svg, found,
      std::regex(R"re(polyline points="([\d.]+),([\d.]+) ([\d.]+),([\d.]+) ([\d.]+),([\d.]+) )re")));
  const double left = std::stod(found[1]);
  const double step = std::stod(found[3]);
  EXPECT_EQ(found[2], found[4]) << "flat until the step";
  EXPECT_EQ(found[3], found[5]) << "upright at the step";
  EXPECT_LT(std::stod(found[6]), std::stod(found[4])) << "slower is higher";
  const std::regex tick(R"re(<text x="([\d.]+)"[^>]*>90 %<)re");
  std::smatch ninety;
  ASSERT_TRUE(std::regex_search(svg, ninety, tick));
  EXPECT_NEAR(step, std::stod(ninety[1]), 0.2);
  EXPECT_LT(left, step);
}

TEST(Durations, have_the_unit_that_fits) {
  EXPECT_EQ(duration_text(12), "12 ns");
  EXPECT_EQ(duration_text(0.5), "0.5 ns");
  EXPECT_EQ(duration_text(1'000), "1 µs");
  EXPECT_EQ(duration_text(3'400'000), "3.4 ms");
  EXPECT_EQ(duration_text(5e9), "5 s");
}

}  // namespace
}  // namespace fulmar::bench
