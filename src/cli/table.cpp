// See table.h.
#include "cli/table.h"

#include <algorithm>

namespace loopfast::cli {

std::string format_table(const std::vector<Column>& columns,
                         const std::vector<std::vector<std::string>>& rows) {
    std::vector<size_t> widths;
    for (size_t i = 0; i < columns.size(); ++i) {
        size_t width = columns[i].title.size();
        for (const auto& row : rows)
            width = std::max(width, row.at(i).size());
        widths.push_back(width);
    }
    std::string text;
    const auto add = [&](auto&& cell) {
        std::string line;
        for (size_t i = 0; i < columns.size(); ++i) {
            const std::string& content = cell(i);
            const std::string padding(widths[i] - content.size(), ' ');
            line += (i == 0 ? "" : "  ") + (columns[i].right ? padding + content : content + padding);
        }
        line.erase(line.find_last_not_of(' ') + 1);
        text += line + "\n";
    };
    add([&](size_t i) -> const std::string& { return columns[i].title; });
    for (const auto& row : rows)
        add([&](size_t i) -> const std::string& { return row[i]; });
    return text;
}

}  // namespace loopfast::cli
