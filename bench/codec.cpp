// bench_codec: what the protocol core costs without any I/O, one operation of one thread. Allocations are counted too: what
// shows as a millionth is the benchmark's own.
//
//   bench_codec [--benchmark_filter=REGEX] [--benchmark_repetitions=5]
//
// Goals: PUBLISH of 100 bytes encode <= 15 ns, decode <= 20 ns; a QoS 1 round trip through a session <= 80 ns, QoS 2
// <= 160 ns, the same from 10 to 60,000 in flight. Where perf_event_open(2) works and the library was built with it,
// --benchmark_perf_counters=INSTRUCTIONS adds instructions.

#include "fulmar/mqtt/codec.hpp"

#include <benchmark/benchmark.h>

#include <array>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

#include "fulmar/mqtt/session.hpp"

namespace {

std::uint64_t allocations = 0;  // of this program's one thread

}  // namespace

// GCC does not see that both are replaced together.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"

void* operator new(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

using namespace fulmar;
using namespace fulmar::mqtt;

constexpr auto v5 = ProtocolVersion::v5;
constexpr auto v3 = ProtocolVersion::v3_1_1;

// Counts what is allocated per item between construction and the end of the loop.
class Allocations {
 public:
  explicit Allocations(benchmark::State& state) : state_(state), before_(allocations) {}
  ~Allocations() {
    state_.counters["allocations"] = benchmark::Counter(
        static_cast<double>(allocations - before_) / static_cast<double>(std::max<std::int64_t>(items, 1)));
  }
  Allocations(const Allocations&) = delete;
  Allocations& operator=(const Allocations&) = delete;
  std::int64_t items = 0;

 private:
  benchmark::State& state_;
  std::uint64_t before_;
};

const std::string topic = "plant/7/line/3/state";  // 20 bytes
const std::string payload(100, 'x');

PublishView small_publish(QoS qos) {
  PublishView message;
  message.topic = topic;
  message.payload = as_bytes(payload);
  message.qos = qos;
  message.packet_id = qos == QoS::at_most_once ? std::uint16_t{0} : std::uint16_t{4711};
  return message;
}

// Content type, response topic, correlation data, payload format and a user property.
class FiveProperties {
 public:
  FiveProperties() {
    writer_.add(PropertyId::payload_format_indicator, 1);
    writer_.add(PropertyId::content_type, "application/json");
    writer_.add(PropertyId::response_topic, "reply/to/me");
    writer_.add(PropertyId::correlation_data, "0123456789abcdef");
    writer_.add_user("trace", "00-4bf92f3577b34da6");
  }
  PropertiesView view() const { return writer_.view(); }

 private:
  std::array<std::byte, 256> buffer_{};
  PropertyWriter writer_{buffer_};
};

template <typename Packet>
std::vector<std::byte> encoded(const Packet& packet, ProtocolVersion version) {
  std::vector<std::byte> out(encoded_size(packet, version));
  encode(out, packet, version);
  return out;
}

template <typename Packet>
void encode_loop(benchmark::State& state, const Packet& packet, ProtocolVersion version) {
  std::array<std::byte, 1024> out{};
  Allocations count(state);
  for (auto _ : state) {
    auto input = packet;
    benchmark::DoNotOptimize(input);
    benchmark::DoNotOptimize(encode(out, input, version));
    benchmark::ClobberMemory();
  }
  count.items = state.iterations();
}

void decode_publish_loop(benchmark::State& state, const PublishView& packet, ProtocolVersion version) {
  const auto bytes = encoded(packet, version);
  Allocations count(state);
  for (auto _ : state) {
    BytesView input = bytes;
    benchmark::DoNotOptimize(input);
    Frame frame;
    PublishView view;
    if (next_frame(input, version, no_packet_limit, frame) != DecodeError::none ||
        decode(frame, version, Sender::server, view) != DecodeError::none) {
      state.SkipWithError("not accepted");
    }
    benchmark::DoNotOptimize(view);
  }
  count.items = state.iterations();
}

void encode_publish_100(benchmark::State& state) {
  encode_loop(state, small_publish(QoS::at_least_once), v3);
}
void encode_publish_100_v5(benchmark::State& state) {
  encode_loop(state, small_publish(QoS::at_least_once), v5);
}
void encode_publish_five_properties(benchmark::State& state) {
  const FiveProperties properties;
  auto message = small_publish(QoS::at_least_once);
  message.properties = properties.view();
  encode_loop(state, message, v5);
}
void encode_puback(benchmark::State& state) {
  encode_loop(state, AckView{PacketType::puback, 4711, ReasonCode::success, {}}, v5);
}
void decode_publish_100(benchmark::State& state) {
  decode_publish_loop(state, small_publish(QoS::at_least_once), v3);
}
void decode_publish_100_v5(benchmark::State& state) {
  decode_publish_loop(state, small_publish(QoS::at_least_once), v5);
}
void decode_publish_five_properties(benchmark::State& state) {
  const FiveProperties properties;
  auto message = small_publish(QoS::at_least_once);
  message.properties = properties.view();
  decode_publish_loop(state, message, v5);
}
void decode_puback(benchmark::State& state) {
  const auto bytes = encoded(AckView{PacketType::puback, 4711, ReasonCode::success, {}}, v5);
  Allocations count(state);
  for (auto _ : state) {
    BytesView input = bytes;
    benchmark::DoNotOptimize(input);
    Frame frame;
    AckView view;
    benchmark::DoNotOptimize(next_frame(input, v5, no_packet_limit, frame));
    benchmark::DoNotOptimize(decode(frame, v5, view));
    benchmark::DoNotOptimize(view);
  }
  count.items = state.iterations();
}

// Publish, transmit, acknowledge, complete, with `state.range(0)` messages in flight all the time. The server's answers are
// encoded here, which is part of the time: 4 bytes each.
void session_round_trip(benchmark::State& state, QoS qos) {
  const auto window = static_cast<std::uint16_t>(state.range(0));
  SessionConfig config;
  config.client_id = "bench";
  config.max_inflight = window;
  config.keepalive_s = 0;
  Session session(config);
  const Instant now{std::chrono::hours(1)};
  std::vector<std::byte> wire(64 << 10), answers;
  Event event;
  std::uint64_t completed = 0;
  const auto drain = [&] {
    while (session.next_event(event)) completed += std::holds_alternative<Completed>(event);
  };
  session.connection_opened(now);
  while (session.transmit(wire, now) != 0) {
  }
  const auto connack = encoded(ConnackView{}, v5);
  session.receive(connack, now);
  drain();

  RecordParts parts;
  parts.topic = topic;
  parts.payload = as_bytes(payload);
  parts.qos = qos;
  std::vector<std::uint64_t> block(RecordView::size_for(parts) / 8);
  write_record(reinterpret_cast<std::byte*>(block.data()), parts);
  const RecordView record(reinterpret_cast<const std::byte*>(block.data()));

  // Answers to what is on the wire: the server of a real connection would see the same bytes.
  std::vector<std::uint16_t> ids;
  const auto answer = [&](PacketType type, std::size_t count) {
    answers.resize(count * 4);
    std::byte* at = answers.data();
    for (std::size_t i = 0; i < count; ++i) {
      *at++ = std::byte{static_cast<unsigned char>(static_cast<unsigned>(type) << 4)};
      *at++ = std::byte{2};
      *at++ = std::byte{static_cast<unsigned char>(ids[i] >> 8)};
      *at++ = std::byte{static_cast<unsigned char>(ids[i] & 0xff)};
    }
    session.receive(answers, now);
    drain();
  };
  const auto batch = std::min<std::size_t>(window, 200);
  const auto send = [&](std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) session.publish(record);
    std::size_t filled = 0;
    while ((filled = session.transmit(wire, now)) != 0) {
      BytesView rest(wire.data(), filled);
      Frame frame;
      while (next_frame(rest, v5, no_packet_limit, frame) == DecodeError::none && frame.size != 0) {
        // PUBLISH: the identifier stands behind the topic.
        if (frame.type == PacketType::publish) {
          const auto* id = frame.body.data() + 2 + topic.size();
          ids.push_back(static_cast<std::uint16_t>(std::to_integer<unsigned>(id[0]) << 8 |
                                                   std::to_integer<unsigned>(id[1])));
        }
        rest = rest.subspan(frame.size);
      }
    }
  };
  const auto cycle = [&] {
    if (qos == QoS::at_least_once) {
      answer(PacketType::puback, batch);
    } else {
      answer(PacketType::pubrec, batch);
      while (session.transmit(wire, now) != 0) {
      }
      answer(PacketType::pubcomp, batch);
    }
    ids.erase(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(batch));
    send(batch);
  };
  ids.reserve(std::size_t{window} * 2);
  while (ids.size() < window) send(std::min<std::size_t>(batch, window - ids.size()));
  for (std::size_t i = 0; i < 2 * (window / batch + 1); ++i) cycle();

  Allocations count(state);
  for (auto _ : state) cycle();
  count.items = state.iterations() * static_cast<std::int64_t>(batch);
  state.SetItemsProcessed(count.items);
  state.counters["per_message"] = benchmark::Counter(
      static_cast<double>(count.items), benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  if (completed == 0) state.SkipWithError("nothing completed");
}
void session_qos_1(benchmark::State& state) { session_round_trip(state, QoS::at_least_once); }
void session_qos_2(benchmark::State& state) { session_round_trip(state, QoS::exactly_once); }

BENCHMARK(encode_publish_100);
BENCHMARK(encode_publish_100_v5);
BENCHMARK(encode_publish_five_properties);
BENCHMARK(encode_puback);
BENCHMARK(decode_publish_100);
BENCHMARK(decode_publish_100_v5);
BENCHMARK(decode_publish_five_properties);
BENCHMARK(decode_puback);
BENCHMARK(session_qos_1)->Arg(10)->Arg(100)->Arg(1'000)->Arg(10'000)->Arg(60'000);
BENCHMARK(session_qos_2)->Arg(10)->Arg(100)->Arg(1'000)->Arg(10'000)->Arg(60'000);

}  // namespace

BENCHMARK_MAIN();
