//! A Rust source, parsed: what it declares, what it refers to, and every word in it.
//!
//! The values are plain, because spans belong to the thread that parsed them.

use std::ops::RangeInclusive;

use proc_macro2::{Delimiter, Ident, Literal, Span, TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use crate::text::{self, Fragment};

/// A parsed file.
#[derive(Debug, Default)]
pub struct Source {
    /// Its `mod name;` declarations.
    pub modules: Vec<Module>,
    /// The paths it names: imports, code, attributes, macro calls.
    pub paths: Vec<Reference>,
    /// Every identifier, string and comment.
    pub fragments: Vec<Fragment>,
    /// Its functions.
    pub functions: Vec<Function>,
    /// The types whose values it builds or takes apart by their fields, and where.
    pub literals: Vec<(String, usize)>,
    /// Its attributes: every word in them, and where.
    pub attributes: Vec<(Vec<String>, usize)>,
    /// Lines of the items that are compiled for tests only.
    pub tests: Vec<RangeInclusive<usize>>,
}

/// A module in a file of its own.
#[derive(Debug)]
pub struct Module {
    /// Its path from the file that declares it.
    pub path: Vec<String>,
    /// Whether it is compiled for tests only.
    pub test: bool,
}

/// A path as written, such as `super::error::OpResult`; a glob ends with `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Its words.
    pub words: Vec<String>,
    /// The line of its last word.
    pub line: usize,
    /// The inline modules around it.
    pub inside: Vec<String>,
    /// Whether it is in code that is compiled for tests only.
    pub test: bool,
}

/// A function or a method.
#[derive(Debug)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Its lines.
    pub lines: RangeInclusive<usize>,
    /// Whether other stages can call it.
    pub public: bool,
    /// Every word in its parameters.
    pub parameters: Vec<String>,
}

impl Source {
    /// Whether a line is compiled for tests only.
    pub fn is_test(&self, line: usize) -> bool {
        self.tests.iter().any(|lines| lines.contains(&line))
    }

    /// Parses a file.
    pub fn parse(text: &str) -> syn::Result<Self> {
        let tokens: TokenStream = text.parse()?;
        let fragments = text::of_rust(text, tokens.clone());
        let file: syn::File = syn::parse2(tokens)?;
        let mut reader =
            Reader { source: Self { fragments, ..Self::default() }, ..Reader::default() };
        reader.visit_file(&file);
        Ok(reader.source)
    }
}

#[derive(Default)]
struct Reader {
    source: Source,
    inside: Vec<String>,
    test: bool,
    /// Within `macro_rules!`, whose `super` and `self` depend on the place of the call.
    macro_rules: bool,
}

impl Reader {
    /// Visits an item, as test code if its attributes mark it.
    fn item(&mut self, attributes: &[syn::Attribute], span: Span, visit: impl FnOnce(&mut Self)) {
        let outer = self.test;
        if !outer && attributes.iter().any(is_for_tests) {
            self.test = true;
            self.source.tests.push(span.start().line..=span.end().line);
        }
        visit(self);
        self.test = outer;
    }

    fn function(&mut self, visibility: &syn::Visibility, signature: &syn::Signature, span: Span) {
        let public = match visibility {
            syn::Visibility::Public(_) => true,
            syn::Visibility::Restricted(to) => to.path.is_ident("crate"),
            syn::Visibility::Inherited => false,
        };
        self.source.functions.push(Function {
            name: signature.ident.to_string(),
            lines: span.start().line..=span.end().line,
            public,
            parameters: idents(signature.inputs.to_token_stream()),
        });
    }

    fn literal(&mut self, path: &syn::Path) {
        if let Some(last) = path.segments.last() {
            self.source.literals.push((last.ident.to_string(), last.ident.span().start().line));
        }
    }

    fn refer(&mut self, words: Vec<String>, span: Span) {
        let rooted = words.first().is_some_and(|word| word == "crate");
        if words.len() > 1 && (rooted || !self.macro_rules) {
            let line = span.start().line;
            self.source.paths.push(Reference {
                words,
                line,
                inside: self.inside.clone(),
                test: self.test,
            });
        }
    }

    fn import(&mut self, tree: &syn::UseTree, stem: &[String]) {
        let with = |ident: &Ident| [stem, &[ident.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.import(&path.tree, &with(&path.ident)),
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, stem);
                }
            }
            syn::UseTree::Name(syn::UseName { ident })
            | syn::UseTree::Rename(syn::UseRename { ident, .. }) => {
                let words = if ident == "self" { stem.to_vec() } else { with(ident) };
                // `use name;` refers to a crate.
                let words =
                    if words.len() == 1 { vec![words.concat(), "*".to_owned()] } else { words };
                self.refer(words, ident.span());
            }
            syn::UseTree::Glob(glob) => {
                self.refer([stem, &["*".to_owned()]].concat(), glob.star_token.spans[0]);
            }
        }
    }

    /// The paths in tokens that no grammar is known of: the arguments of a macro.
    fn tokens(&mut self, tokens: TokenStream, stem: &[String]) {
        let mut chain = stem.to_vec();
        let mut last = Span::call_site();
        let mut colons = if stem.is_empty() { 0 } else { 2 };
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.refer(std::mem::take(&mut chain), last);
                    }
                    if ident == "self" && !stem.is_empty() {
                        continue;
                    }
                    chain.push(ident.to_string());
                    (last, colons) = (ident.span(), 0);
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && !chain.is_empty() => {
                    colons += 1;
                }
                TokenTree::Punct(punct) if punct.as_char() == '*' && colons == 2 => {
                    chain.push("*".to_owned());
                }
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace && colons == 2 => {
                    self.tokens(group.stream(), &std::mem::take(&mut chain));
                    colons = 0;
                }
                other => {
                    self.refer(std::mem::replace(&mut chain, stem.to_vec()), last);
                    colons = if stem.is_empty() { 0 } else { 2 };
                    match other {
                        TokenTree::Group(group) => self.tokens(group.stream(), &[]),
                        TokenTree::Literal(literal) => self.path_in_string(&literal),
                        _ => {}
                    }
                }
            }
        }
        self.refer(chain, last);
    }

    /// `#[serde(with = "crate::bytes")]` refers to a module.
    fn path_in_string(&mut self, literal: &Literal) {
        let text = literal.to_string();
        let path = text.trim_matches('"');
        if ["crate::", "super::", "self::"].iter().any(|start| path.starts_with(start))
            && !path.contains(' ')
        {
            self.refer(path.split("::").map(str::to_owned).collect(), literal.span());
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        self.item(attributes(item), item.span(), |reader| visit::visit_item(reader, item));
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.vis, &item.sig, item.span());
        visit::visit_item_fn(self, item);
    }

    fn visit_expr_struct(&mut self, literal: &'ast syn::ExprStruct) {
        self.literal(&literal.path);
        visit::visit_expr_struct(self, literal);
    }

    fn visit_pat_struct(&mut self, pattern: &'ast syn::PatStruct) {
        self.literal(&pattern.path);
        visit::visit_pat_struct(self, pattern);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if !attribute.path().is_ident("doc") {
            let words = idents(attribute.meta.to_token_stream());
            self.source.attributes.push((words, attribute.span().start().line));
        }
        visit::visit_attribute(self, attribute);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.vis, &item.sig, item.span());
        self.item(&item.attrs, item.span(), |reader| visit::visit_impl_item_fn(reader, item));
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.inside.push(item.ident.to_string());
        if item.content.is_none() {
            self.source.modules.push(Module { path: self.inside.clone(), test: self.test });
        }
        visit::visit_item_mod(self, item);
        self.inside.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.import(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let words = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let Some(last) = path.segments.last() {
            self.refer(words, last.ident.span());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        visit::visit_macro(self, call);
        // What `quote!` holds is code of the crate that uses the macro.
        if !call.path.is_ident("quote") {
            self.tokens(call.tokens.clone(), &[]);
        }
    }

    fn visit_item_macro(&mut self, item: &'ast syn::ItemMacro) {
        self.macro_rules = item.ident.is_some();
        visit::visit_item_macro(self, item);
        self.macro_rules = false;
    }

    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        self.tokens(list.tokens.clone(), &[]);
    }
}

/// `#[cfg(test)]`, `#[cfg(all(test, ..))]`, `#[test]`.
fn is_for_tests(attribute: &syn::Attribute) -> bool {
    let words = idents(attribute.meta.to_token_stream());
    let has = |word: &str| words.iter().any(|found| found == word);
    attribute.path().is_ident("test")
        || attribute.path().is_ident("cfg") && has("test") && !has("not")
}

/// Every word among tokens, however deep.
pub fn idents(tokens: TokenStream) -> Vec<String> {
    let words = |token| match token {
        TokenTree::Ident(ident) => vec![ident.to_string()],
        TokenTree::Group(group) => idents(group.stream()),
        _ => Vec::new(),
    };
    tokens.into_iter().flat_map(words).collect()
}

/// The attributes of an item that can be compiled for tests alone.
fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(source: &str) -> Vec<String> {
        let source = Source::parse(source).unwrap();
        source.paths.iter().map(|path| path.words.join("::")).collect()
    }

    #[test]
    fn imports_are_split_into_paths() {
        assert_eq!(
            paths(
                "use a; pub use a::b::{self, c, d::{e, f as g}, h::*,}; use ::i::j; use super::*;"
            ),
            [
                "a::*",
                "a::b",
                "a::b::c",
                "a::b::d::e",
                "a::b::d::f",
                "a::b::h::*",
                "i::j",
                "super::*"
            ]
        );
    }

    #[test]
    fn paths_in_code_are_found() {
        let source =
            "fn f(x: a::B<c::D>) -> ::e::F { g::<h::I>(); x.j::<k::L>(); <M as n::O>::p::q(); }";
        assert_eq!(paths(source), ["a::B", "c::D", "e::F", "h::I", "k::L", "n::O::p::q"]);
    }

    #[test]
    fn paths_in_macros_and_attributes_are_found() {
        assert_eq!(paths("fn f() { r!(x: s::t, u { v::w(y) }) }"), ["s::t", "v::w"]);
        assert_eq!(
            paths("m! { use a::{self, b, c::{d}}; use e::*; }"),
            ["a::b", "a::c::d", "e::*"]
        );
        assert_eq!(
            paths("#[derive(a::B)] struct S { #[serde(with = \"crate::c\")] x: u8 }"),
            ["a::B", "crate::c"]
        );
        assert_eq!(paths("fn f() { quote! { crate::g() } }"), [""; 0]);
        assert_eq!(paths("macro_rules! m { () => { $crate::a::b!(super::c) } }"), ["crate::a::b"]);
    }

    #[test]
    fn test_code_is_marked() {
        let source = "mod a; #[cfg(test)]\nmod b;\n#[cfg(test)] mod c { fn f() { d::e() }\n}\nfn f() { g::h() }\n#[cfg(not(test))] fn i() { j::k() }";
        let source = Source::parse(source).unwrap();
        assert_eq!(
            source.modules.iter().map(|module| module.test).collect::<Vec<_>>(),
            [false, true]
        );
        assert_eq!(
            source.paths.iter().map(|path| path.test).collect::<Vec<_>>(),
            [true, false, false]
        );
        assert_eq!(source.tests, [1..=2, 3..=4]);
    }
}
