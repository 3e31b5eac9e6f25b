//! Policy files to rules. Nothing here knows of requests.

pub mod check;
mod contradiction;
pub(crate) mod descriptor;
pub mod fields;
pub mod file;
pub(crate) mod line;
mod list;
pub(crate) mod message_class;
pub mod name;
pub mod netns;
pub mod operand;
pub(crate) mod option_class;
mod position;
pub(crate) mod qualifier;
pub mod rule;
mod rule_text;
mod subject_text;
pub mod subjects;
pub mod value;
pub mod verb;
mod vocabulary;
