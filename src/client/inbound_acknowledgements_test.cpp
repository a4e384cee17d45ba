#include "client/inbound_acknowledgements.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace fulmar {
namespace {

using testing::ElementsAre;
using Answer = std::pair<int, int>;  // packet identifier, reason

class Acknowledgements : public testing::Test {
 protected:
  void note(std::uint64_t number, int parts, std::uint8_t reason = 0) {
    auto state = std::make_unique<AcknowledgementMailbox::Note>();
    state->number = number;
    state->parts = parts;
    state->reason = reason;
    mailbox->post(std::move(state));
  }
  Acknowledgement token(std::uint64_t number) {
    auto state = std::make_unique<AcknowledgementMailbox::Note>();
    state->number = number;
    state->mailbox = mailbox;
    return Acknowledgement(std::move(state));
  }
  std::vector<Answer> take(std::uint64_t handled) {
    std::vector<Answer> answers;
    acknowledgements.take(handled, [&](std::uint16_t id, mqtt::ReasonCode reason) {
      answers.emplace_back(id, static_cast<int>(reason));
    });
    return answers;
  }

  std::shared_ptr<AcknowledgementMailbox> mailbox =
      std::make_shared<AcknowledgementMailbox>(std::make_shared<DispatchLane::Life>(), [] {});
  InboundAcknowledgements acknowledgements{mailbox};
};

TEST_F(Acknowledgements, follow_the_count_of_handled_messages) {
  acknowledgements.delivered(1, 11, QoS::at_least_once);
  acknowledgements.delivered(4, 14, QoS::exactly_once);  // 2 and 3 were of QoS 0
  EXPECT_FALSE(acknowledgements.ready(0));
  EXPECT_TRUE(acknowledgements.ready(1));
  EXPECT_THAT(take(3), ElementsAre(Answer(11, 0)));
  EXPECT_FALSE(acknowledgements.ready(3));
  EXPECT_THAT(take(4), ElementsAre(Answer(14, 0)));
  EXPECT_EQ(acknowledgements.size(), 0u);
}

TEST_F(Acknowledgements, wait_for_every_part_that_was_left_open) {
  for (int i = 1; i <= 3; ++i)
    acknowledgements.delivered(i, static_cast<std::uint16_t>(10 + i), QoS::at_least_once);
  auto first = token(2);
  auto second = token(2);
  first.acknowledge();  // before the lane has told that it left two open
  EXPECT_TRUE(acknowledgements.ready(0));
  EXPECT_THAT(take(0), ElementsAre());
  note(2, 2);
  EXPECT_THAT(take(3), ElementsAre(Answer(11, 0), Answer(13, 0)));
  second.acknowledge();
  second.acknowledge();
  EXPECT_FALSE(second);
  EXPECT_THAT(take(3), ElementsAre(Answer(12, 0)));
  EXPECT_THAT(take(3), ElementsAre());
  EXPECT_EQ(acknowledgements.size(), 0u);
}

TEST_F(Acknowledgements, keep_the_refusal_of_any_part) {
  acknowledgements.delivered(1, 11, QoS::at_least_once);
  note(1, 3);
  token(1).acknowledge();
  token(1).acknowledge(0x99);
  EXPECT_THAT(take(1), ElementsAre());
  token(1).acknowledge(0);
  EXPECT_THAT(take(1), ElementsAre(Answer(11, 0x99)));
}

TEST_F(Acknowledgements, of_a_token_that_is_thrown_away_never_come) {
  acknowledgements.delivered(1, 11, QoS::at_least_once);
  note(1, 1);
  {
    const auto thrown_away = token(1);
  }
  EXPECT_THAT(take(1), ElementsAre());
  EXPECT_EQ(acknowledgements.size(), 1u);
}

TEST_F(Acknowledgements, of_a_former_connection_count_for_qos_2_of_a_kept_session_only) {
  acknowledgements.delivered(1, 11, QoS::at_least_once);
  acknowledgements.delivered(2, 12, QoS::exactly_once);
  acknowledgements.delivered(3, 13, QoS::exactly_once);
  note(1, 1);
  note(2, 1);
  EXPECT_THAT(take(2), ElementsAre());
  acknowledgements.connected(true);
  acknowledgements.delivered(4, 11, QoS::at_least_once);  // it came again
  token(1).acknowledge();
  token(2).acknowledge();
  EXPECT_THAT(take(2), ElementsAre(Answer(12, 0)));
  EXPECT_THAT(take(4), ElementsAre(Answer(13, 0), Answer(11, 0)));
}

TEST_F(Acknowledgements, of_a_lost_session_count_for_nothing) {
  acknowledgements.delivered(1, 11, QoS::exactly_once);
  note(1, 1);
  EXPECT_THAT(take(1), ElementsAre());
  acknowledgements.connected(false);
  token(1).acknowledge();
  EXPECT_THAT(take(1), ElementsAre());
  EXPECT_EQ(acknowledgements.size(), 0u);
}

}  // namespace
}  // namespace fulmar
