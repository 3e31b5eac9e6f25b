//! Suite `policy`: the time of a decision, and its growth with the number of rules.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Instant;

use sockbroker_policy::Policy;
use sockbroker_policy::action::{Connect, Request as _};
use sockbroker_policy::file::{Directory, read};
use sockbroker_policy::rights::Rights;
use sockbroker_policy::subject::Subject;
use sockbroker_policy::target;
use sockbroker_proto::address::Address;
use sockbroker_proto::socket_spec::SocketSpec;

use crate::error::Result;
use crate::measure::{Sample, number};
use crate::report::{Report, Row, Target};

/// The number of decisions in a round, and of rounds.
const DECISIONS: usize = 20_000;
const ROUNDS: usize = 15;
/// The numbers of rules to measure.
const SIZES: [usize; 4] = [20, 100, 1_000, 10_000];

/// The target of a decision with 20 rules, in nanoseconds.
const DECISION: Target = Target::AtMost(200.0);
/// The target of the growth: linear, the time grows at most like the number of rules.
const LINEAR: Target = Target::AtMost(1.0);

pub(crate) fn run(report: &mut Report) -> Result<()> {
    let mut few = None;
    for rules in SIZES {
        let rights = rights(rules)?;
        // The last rule allows the first host; no rule allows the second.
        let hit = sample(&rights, Ipv4Addr::new(192, 0, 2, 1));
        let miss = sample(&rights, Ipv4Addr::new(203, 0, 113, 1));
        for (name, sample) in [("granted by the last", hit), ("granted by none", miss)] {
            let row = Row::new(format!("{rules} rules, {name}"), sample, "ns");
            report.add(if rules == 20 { row.target(DECISION) } else { row });
        }
        let (fewest, short) = *few.get_or_insert((rules, hit.median));
        if rules > fewest {
            let growth = hit.median / short / (number(rules) / number(fewest));
            let name = format!("{rules} rules, growth against linear from {fewest}");
            report.add(Row::new(name, Sample::of(&[growth]), "x").target(LINEAR));
        }
    }
    Ok(())
}

/// Creates rules about one verb and one subject, so that the broker evaluates each of them.
fn rights(rules: usize) -> Result<Rights> {
    let mut text = "version = 1\n".to_owned();
    for placement in 0..rules {
        let network = if placement + 1 == rules {
            "192.0.2.0/24".to_owned()
        } else {
            format!("10.{}.{}.0/24", placement / 250, placement % 250)
        };
        text.extend([
            "[[rule]]\nsubject = { groups = [\"g\"] }\nallow = [\"connect\", \"send\"]\n",
            "family = [\"AF_INET\", \"AF_INET6\"]\ntype = [\"SOCK_STREAM\"]\n",
            "remote_ports = [\"80\", \"443\"]\n",
            &format!("name = \"rule {placement}\"\nremote = [\"{network}\"]\n"),
        ]);
    }
    let content = read("policy", &text, &OneGroup)?;
    let rules = content.rules.into_iter().map(|(rule, _)| rule).collect();
    let subject = Subject::new(1000, 1000).in_groups(vec![GROUP]);
    Ok(Policy::new(970, rules, false).select(&subject, Vec::new()))
}

const GROUP: u32 = 50;

struct OneGroup;

impl Directory for OneGroup {
    fn user(&self, _name: &str) -> Option<u32> {
        None
    }

    fn group(&self, _name: &str) -> Option<u32> {
        Some(GROUP)
    }
}

/// Measures the nanoseconds of a decision, including the request and dropping the result. The message of a refusal
/// is not included: the caller formats it later.
fn sample(rights: &Rights, host: Ipv4Addr) -> Sample {
    let socket = SocketSpec { domain: 2, ty: 1, protocol: 6 };
    let decisions = DECISIONS / rights.rules().len().div_ceil(20);
    let rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..decisions {
                let address = Address::Inet { host: black_box(host), port: 443 };
                let target = target::Target::Address(address);
                let (local, interfaces, looked_up) = (None, Vec::new(), None);
                let request = Connect { socket, target, local, interfaces, looked_up };
                drop(black_box(rights.decide(&request.question())));
            }
            start.elapsed().as_secs_f64() * 1e9 / number(decisions)
        })
        .collect();
    Sample::of(&rounds)
}
