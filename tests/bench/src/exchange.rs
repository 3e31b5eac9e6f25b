//! Sends prepared requests and measures how fast the answers arrive.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use crate::client::{self, Client};
use crate::error::Result;
use crate::measure::{FILLING, Sample, median_seconds, number};

/// How often each request is sent in one sample of [`Exchange::in_flight`], which takes about a millisecond.
const STRETCH: usize = 5;

/// A stream with its requests and the expected answers. All requests have the same length, and all answers too.
#[derive(Debug)]
pub(crate) struct Exchange {
    stream: UnixStream,
    /// The requests, twice in a row, so that any sequence of them is one slice.
    requests: Vec<u8>,
    request: usize,
    /// The answers, likewise.
    answers: Vec<u8>,
    answer: usize,
    count: usize,
    buffer: Vec<u8>,
}

impl Exchange {
    /// Prepares calls of a broker. It makes each one once, to learn the answer.
    pub(crate) fn calls(mut client: Client, calls: &[String]) -> Result<Self> {
        let (mut requests, mut answers) = (Vec::new(), Vec::new());
        for json in calls {
            let request = client.framing().wrap(json);
            let (answer, json) = client.send(&request)?;
            client::result(&json)?;
            requests.push(request);
            answers.push(answer);
        }
        Self::new(client.into_stream(), &requests, &answers)
    }

    /// Prepares messages of these sizes for a peer in the role of an echo.
    pub(crate) fn with_echo(
        stream: UnixStream,
        (request, answer): (usize, usize),
        count: usize,
    ) -> Result<Self> {
        let requests = vec![vec![FILLING; request]; count];
        let answers = vec![vec![FILLING; answer]; count];
        Self::new(stream, &requests, &answers)
    }

    fn new(stream: UnixStream, requests: &[Vec<u8>], answers: &[Vec<u8>]) -> Result<Self> {
        let (request, answer) = (common_length(requests)?, common_length(answers)?);
        Ok(Self {
            stream,
            requests: [requests.concat(), requests.concat()].concat(),
            request,
            answers: [answers.concat(), answers.concat()].concat(),
            answer,
            count: requests.len(),
            buffer: vec![0; answers.len() * answer],
        })
    }

    /// Returns the length of a request and of an answer.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.request, self.answer)
    }

    /// Returns the median time of sequential round trips, in seconds.
    pub(crate) fn round_trip(&mut self, trips: usize) -> Result<f64> {
        let mut position = 0;
        median_seconds(trips, || {
            let [request, answer] = [position * self.request, position * self.answer];
            self.stream.write_all(slice(&self.requests, request, self.request))?;
            let mut filled = 0;
            while filled < self.answer {
                filled += self.receive(answer + filled)?;
            }
            position = (position + 1) % self.count;
            Ok(())
        })
    }

    /// Returns the calls per second with a constant number of calls in flight, the number of requests. Each answer
    /// triggers the next request. The result is the median of short samples, to ignore samples in which another process
    /// used the CPU. `calls` is at least the number of requests.
    pub(crate) fn in_flight(&mut self, calls: usize) -> Result<f64> {
        let all = self.count * self.answer;
        let (mut sent, mut answered, mut bytes) = (self.count, 0, 0);
        let mut stretch = (0, Instant::now());
        let mut rates = Vec::new();
        self.stream.write_all(slice(&self.requests, 0, sent * self.request))?;
        while answered < calls {
            bytes += self.receive(bytes % all)?;
            answered = bytes / self.answer;
            let more = (answered + self.count).min(calls) - sent;
            let from = (sent % self.count) * self.request;
            self.stream.write_all(slice(&self.requests, from, more * self.request))?;
            sent += more;
            let (begun, since) = stretch;
            if answered - begun >= STRETCH * self.count {
                rates.push(number(answered - begun) / since.elapsed().as_secs_f64());
                stretch = (answered, Instant::now());
            }
        }
        Ok(Sample::of(&rates).median)
    }

    /// Reads available bytes and compares them with the answers from `position` on.
    fn receive(&mut self, position: usize) -> Result<usize> {
        let n = self.stream.read(&mut self.buffer)?;
        if n == 0 {
            return Err("the other end closed the connection".into());
        }
        if self.buffer.get(..n) != self.answers.get(position..position + n) {
            return Err("an answer differs from the one to the same request before".into());
        }
        Ok(n)
    }
}

fn slice(bytes: &[u8], from: usize, length: usize) -> &[u8] {
    bytes.get(from..from + length).unwrap_or_default()
}

fn common_length(messages: &[Vec<u8>]) -> Result<usize> {
    let length = messages.first().map_or(0, Vec::len);
    if length == 0 || messages.iter().any(|message| message.len() != length) {
        return Err("messages of one measurement must have one length".into());
    }
    Ok(length)
}
