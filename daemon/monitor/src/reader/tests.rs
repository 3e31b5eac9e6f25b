//! The process on channels of the test.
